"""A model tuned from a model of our own, and an adapter that cannot be merged, through the whole line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import preloaded
from tests.in_process import Line

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


PLAN = """
import sys
from hone_app.cli.main import main
status = main(["plan", *sys.argv[1:]])
print(status, sorted({"mlflow", "torch", "transformers", "prefect"} & set(sys.modules)))
"""


def test_a_model_on_a_model_of_our_own(hone: Hone, line: Line, conf: Path, environment: dict[str, str]) -> None:
    parent = line(conf, "training.epochs=2")["register"].facts()
    second = ("name=second", "model.base=models:/small@candidate", "method.kind=lora", "training.epochs=2")
    page = (line(conf, *second)["register"].path / "report.html").read_text()

    from mlflow import MlflowClient

    client = MlflowClient(line.home.tracking_uri)
    tags = client.get_model_version_by_alias("second", "candidate").tags
    assert tags["hone.base_model"] == "models:/small/1"
    assert (tags["hone.base_version"], tags["hone.parent_run"]) == ("1", parent["run_id"])
    assert client.get_model_version("small", "1").tags["hone.data_sources"] == "rows.csv"
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
    line(conf, "training.epochs=3")
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
    method: str, line: Line, conf: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """It answers in a clean process as it was evaluated."""
    import pyarrow.parquet as pq

    made = line(conf, f"method.kind={method}", "method.virtual_tokens=4")
    judged = made["evaluate"].facts()
    assert (judged["whole"], judged["merged"]) == (False, None)
    page = (made["register"].path / "report.html").read_text()
    assert "it was tested as it is served, on its base model" in page

    version = [file.name for file in (line.home.root / "mlflow" / "artifacts").rglob("*.safetensors")]
    assert version == ["adapter_model.safetensors"]
    rows, said = made["validate"].path / "test.parquet", made["evaluate"].path / "predictions.parquet"
    texts = dict(zip(*(pq.read_table(rows)[name].to_pylist() for name in ("id", "text")), strict=True))
    evaluated = pq.read_table(said).to_pydict()
    answer = subprocess.run(
        [preloaded.python(), "-c", ANSWER, line.home.tracking_uri],
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
