"""What the train stage reports while a training process loads and trains."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.environment import Home
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES
from hone.progress import Progress
from hone.store.artifact import Artifact, Product


def make_stage(place: Path, monkeypatch: pytest.MonkeyPatch, reported: list[Progress]) -> Product:
    """The stage's product, of a configuration with a base model in `place`; MLflow is left out."""
    run = SimpleNamespace(hear=lambda _: None, run_id="1")
    monkeypatch.setattr("hone.tracking.run_log.training_run", lambda **_: nullcontext(run))
    config = parse_config(
        {"name": "x", "ingest": {"source": {"kind": "files", "paths": ["rows.csv"]}}, "model": {"base": str(place)}}
    )
    inputs = {"tokenize": Artifact("tokenize", "k", str(place), "d", 1)}
    return STAGES["train"].make(Job(config, inputs, Home(place), on_progress=reported.append))


@pytest.mark.parametrize("course", ["", "The training loss rose (from 1 to 2): the learning rate 0.1 may be too high."])
def test_a_loss_that_did_not_fall_is_a_warning(
    course: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("hone.training.launch.train", lambda *_, **__: Product(1, (), {"course": course}))
    product = make_stage(tmp_path, monkeypatch, [])
    assert [record.getMessage() for record in caplog.records] == [course] * bool(course)
    assert product.facts["course"] == course and product.facts["mlflow"] == {"run_id": "1"}


def test_loading_and_lack_of_memory_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    def train(*_: Any, on_event: Any, **__: Any) -> Product:
        assert len(reported) == 1
        on_event({"type": "started", "steps": 8})
        on_event({"type": "out_of_memory", "micro_batch_size": 4, "detail": "tried to allocate 2 GB"})
        on_event({"type": "step", "step": 1, "loss": 0.5})
        return Product(1, ())

    monkeypatch.setattr("hone.training.launch.train", train)
    reported: list[Progress] = []
    make_stage(tmp_path, monkeypatch, reported)
    assert reported == [
        Progress(0, 0, "steps", note="loading the model"),
        Progress(0, 8, "steps", note="training"),
        Progress(1, 8, "steps", figures={"loss": 0.5}),
    ]
    [warning] = caplog.records
    assert (warning.levelname, warning.name.partition(".")[0]) == ("WARNING", "hone")
    assert "restarts from its last checkpoint, 4 rows at a time (tried to allocate 2 GB)" in warning.getMessage()
