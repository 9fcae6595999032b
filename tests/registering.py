"""Registering as the line does, and asking what was registered."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hone.methods.full import Full
from hone.models.locate import BaseModel
from hone.objectives.text_classification import TextClassification
from hone.registry.register import register
from hone.store.artifact import Artifact
from hone.tracking.client import connect
from hone.tracking.run_log import training_run
from tests import preloaded

Registration = dict[str, Any]
TAGS = {"hone.git_commit": "abc123", "hone.flow_run_id": "flow-1"}


def do_register(
    out: Path, artifacts: Mapping[str, Artifact], base: BaseModel, uri: str, method: Any = None, **other: Any
) -> Registration:
    """Register as the line does: in the run of the training's key."""
    config = Path(artifacts["train"].path / "config.yaml").read_text("utf8")
    about = {"experiment": "hone", "name": "tiny", "key": artifacts["train"].key, "params": {"a": 1}, "tags": {}}
    out.mkdir(parents=True, exist_ok=True)
    with training_run(uri, **about) as run:
        given: dict[str, Any] = {
            "artifacts": artifacts,
            "render_report": lambda registered: f"<html>the report of version {registered.version}</html>",
            "base": base,
            "objective": TextClassification(),
            "method": method or Full(),
            "tracking_uri": uri,
            "run_id": run.run_id,
            "model_name": "tiny",
            "alias": "candidate",
            "config": config,
            "tags": TAGS,
        }
        register(out, **(given | other))
    registration: Registration = json.loads((out / "registration.json").read_text("utf8"))
    return registration


ANSWER = """
import sys
sys.modules["hone"] = None
import json
import mlflow, pandas as pd
uri, model, texts, config = map(json.loads, sys.argv[1:])
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model, model_config=config)
frame = model.predict(pd.DataFrame({"text": texts}), params={"all_scores": True})
print(json.dumps([frame.to_dict("list"), model.predict(texts).to_dict("list")]))
"""


def in_clean_process(registration: Registration, texts: list[str], **config: Any) -> list[Any]:
    """Answers, with all scores and without, of a process that cannot import hone and works in another directory."""
    given = [registration["tracking_uri"], registration["model_uri"], texts, config]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [preloaded.python(), "-c", ANSWER, *map(json.dumps, given)],
            cwd=place,
            env=os.environ | {"PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answers


def in_this_process(registration: Registration, texts: list[str], **config: Any) -> list[Any]:
    from mlflow.pyfunc import load_model

    model = load_model(str(place_of(registration)), model_config=config)
    return [model.predict(texts, params=params).to_dict("list") for params in ({"all_scores": True}, None)]


def logged_model(registration: Registration) -> Any:
    """The logged model behind the version."""
    client = connect(registration["tracking_uri"])
    (model,) = [
        model
        for model in client.search_logged_models([registration["experiment_id"]])
        if client.get_model_version(registration["model"], registration["version"]).source
        == f"models:/{model.model_id}"
    ]
    return model


def place_of(registration: Registration) -> Path:
    return Path(logged_model(registration).artifact_location.removeprefix("file://"))


def pointed_to(client: Any) -> str:
    return str(client.get_model_version_by_alias("tiny", "candidate").version)


def predictions_file(artifacts: Mapping[str, Artifact]) -> Path:
    return artifacts["evaluate"].path / "predictions.parquet"


def predictions(artifacts: Mapping[str, Artifact]) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    return {
        "text": pq.read_table(artifacts["validate"].path / "test.parquet")["text"].to_pylist(),
        **pq.read_table(predictions_file(artifacts)).to_pydict(),
    }


def assert_answers_as_evaluated(
    registration: Registration, artifacts: Mapping[str, Artifact], *, clean: bool = False, **config: Any
) -> None:
    evaluated = predictions(artifacts)
    answer = in_clean_process if clean else in_this_process
    with_scores, plain = answer(registration, evaluated["text"], **config)
    assert with_scores["label"] == plain["label"] == evaluated["prediction"]
    assert plain["score"] == pytest.approx(evaluated["confidence"], abs=1e-5)
    for served, scores in zip(with_scores["scores"], evaluated["scores"], strict=True):
        assert list(served.values()) == pytest.approx(scores, abs=1e-5)
