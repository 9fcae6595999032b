"""A model tuned from a model of our own, and an adapter that cannot be merged, through the whole line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


def facts(environment: dict[str, str], stage: str) -> dict[str, Any]:
    """What the newest manifest of a stage says."""
    files = Path(environment["HONE_HOME"], "store", stage).glob("*/manifest.json")
    found: dict[str, Any] = json.loads(max(files, key=lambda file: file.stat().st_mtime).read_text())["facts"]
    return found


def report(environment: dict[str, str]) -> str:
    files = Path(environment["HONE_HOME"], "store", "register").glob("*/report.html")
    return max(files, key=lambda file: file.stat().st_mtime).read_text()


PLAN = """
import sys
from hone.cli import main
status = main(["plan", *sys.argv[1:]])
print(status, sorted({"mlflow", "torch", "transformers", "prefect"} & set(sys.modules)))
"""


def test_a_model_on_a_model_of_our_own(hone: Hone, conf: Path, environment: dict[str, str]) -> None:
    first = hone("run", conf, "training.epochs=2")
    assert first.returncode == 0, first.stderr
    parent = facts(environment, "register")
    second = ("name=second", "model.base=models:/small@candidate", "method.kind=lora", "training.epochs=2")
    done = hone("run", conf, *second)
    assert done.returncode == 0, done.stderr
    assert "second version 1, alias candidate" in done.stdout

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db")
    tags = client.get_model_version_by_alias("second", "candidate").tags
    assert tags["hone.base_model"] == "models:/small/1"
    assert (tags["hone.base_version"], tags["hone.parent_run"]) == ("1", parent["run_id"])
    assert client.get_model_version("small", "1").tags["hone.data_sources"] == "rows.csv"
    page = report(environment)
    assert "Models before this one" in page
    assert "models:/small/1" in page
    assert parent["run_id"] in page
    assert "trained on rows.csv" in page

    # Nothing has changed: the plan says so, and opens neither MLflow nor torch for it.
    words = [sys.executable, "-c", PLAN, str(conf), *second]
    plan = subprocess.run(words, capture_output=True, text=True, env=environment, check=True).stdout
    assert plan.rstrip().endswith("0 []")
    assert "miss" not in plan

    # The alias moves to a newer version: what was made of the old one no longer holds.
    assert hone("run", conf, "training.epochs=3").returncode == 0
    plan = hone("plan", conf, *second).stdout
    assert "input base model changed" in plan

    unknown = hone("plan", conf, "model.base=models:/small@champion")
    assert unknown.returncode == 5
    assert "There are version 1, 2, @candidate (version 2)" in unknown.stderr


ANSWER = """
import sys, json
sys.modules["hone"] = None
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/small@candidate")
answers = model.predict(json.load(sys.stdin))
print(json.dumps([answers["label"].tolist(), answers["score"].tolist()]))
"""


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_an_adapter_that_cannot_be_merged(
    method: str, hone: Hone, conf: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """It answers in a clean process as it was evaluated."""
    import pyarrow.parquet as pq

    done = hone("run", conf, f"method.kind={method}", "method.virtual_tokens=4")
    assert done.returncode == 0, done.stderr
    judged = facts(environment, "evaluate")
    assert (judged["whole"], judged["merged"]) == (False, None)
    assert "it was tested as it is served, on its base model" in report(environment)

    home = Path(environment["HONE_HOME"])
    version = [file.name for file in (home / "mlflow" / "artifacts").rglob("*.safetensors")]
    assert version == ["adapter_model.safetensors"]
    (rows,), (said,) = (
        (home / "store").glob(f"{name}.parquet") for name in ("validate/*/test", "evaluate/*/predictions")
    )
    texts = dict(zip(*(pq.read_table(rows)[name].to_pylist() for name in ("id", "text")), strict=True))
    evaluated = pq.read_table(said).to_pydict()
    answer = subprocess.run(
        [sys.executable, "-c", ANSWER, f"sqlite:///{home}/mlflow/mlflow.db"],
        input=json.dumps([texts[name] for name in evaluated["id"]]),
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": ""},
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    labels, scores = json.loads(answer.stdout.splitlines()[-1])
    assert labels == evaluated["prediction"]
    assert scores == pytest.approx(evaluated["confidence"], abs=1e-5)
