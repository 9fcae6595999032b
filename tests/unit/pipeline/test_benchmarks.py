"""What moves the keys of the benchmarks: the base model's results outlive a training, and follow the tasks' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import ConfigError
from hone.pipeline.run import build_recipe
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_inputs, list_stages
from hone.store.artifact import Artifact

MODEL, BASE = "benchmarks", "benchmarks-base"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a base model and a folder of tasks."""
    for name in ("model", "tasks"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tasks" / "quiz.yaml").write_text("task: quiz\n")
    (tmp_path / "tasks" / "quiz.jsonl").write_text("{}\n")
    return tmp_path


def configured(place: Path, benchmarks: dict[str, Any] | None = None, **sections: Any) -> Any:
    tasks = {"tasks": ["quiz"], "include": str(place / "tasks")}
    return parse_config(
        {
            "name": "x",
            "objective": {"kind": "causal-lm"},
            "ingest": {"source": {"kind": "files", "paths": ["rows.txt"]}},
            "model": {"base": str(place / "model")},
            "evaluation": {"benchmarks": tasks | (benchmarks or {})},
        }
        | sections
    )


def key(stage: str, place: Path, config: Any, trained: str = "weights") -> str:
    inputs = {name: Artifact(name, "k", "/nowhere", f"digest of {name}", 1) for name in STAGES}
    inputs["train"] = Artifact("train", "k", "/nowhere", trained, 1)
    return build_recipe(stage, Job(config, inputs, Home(place))).key


def test_a_training_moves_the_model_s_key_and_not_the_base_s(place: Path) -> None:
    before = {stage: key(stage, place, configured(place)) for stage in (MODEL, BASE)}
    changed = configured(place, training={"epochs": 9}, method={"kind": "lora"}, name="y")
    assert key(BASE, place, changed, "other weights") == before[BASE]
    assert key(MODEL, place, configured(place), "other weights") != before[MODEL]


@pytest.mark.parametrize("benchmarks", [{"tasks": ["other"]}, {"limit": 3}, {"limit": None}])
def test_tasks_and_limit_move_both(place: Path, benchmarks: dict[str, Any]) -> None:
    for stage in (MODEL, BASE):
        assert key(stage, place, configured(place, benchmarks)) != key(stage, place, configured(place))


def test_the_files_of_the_tasks_move_both_and_their_place_moves_none(place: Path) -> None:
    before = {stage: key(stage, place, configured(place)) for stage in (MODEL, BASE)}
    moved = (place / "tasks").rename(place / "elsewhere")
    away = configured(place, {"include": str(moved)})
    assert {stage: key(stage, place, away) for stage in before} == before
    (moved / "__pycache__").mkdir()
    (moved / "__pycache__" / "quiz.pyc").write_bytes(b"compiled")
    assert {stage: key(stage, place, away) for stage in before} == before
    (moved / "quiz.jsonl").write_text('{"answer": 1}\n')
    assert all(key(stage, place, away) != before[stage] for stage in before)


def test_the_evaluation_s_key_follows_their_results_alone(place: Path) -> None:
    assert key("evaluate", place, configured(place)) == key("evaluate", place, configured(place, {"limit": 3}))
    assert {MODEL, BASE} <= set(list_inputs("evaluate", configured(place)))
    plain = configured(place, evaluation={})
    assert not {MODEL, BASE} & {*list_stages(plain), *list_inputs("evaluate", plain)}


def test_the_base_is_asked_before_the_training(place: Path) -> None:
    stages = list_stages(configured(place))
    assert stages.index(BASE) < stages.index("train") < stages.index(MODEL) < stages.index("evaluate")


def test_a_folder_of_tasks_that_is_not_there_is_one_error(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.benchmarks\.include: .*nowhere: there is no such directory"):
        key(BASE, place, configured(place, {"include": str(place / "nowhere")}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"kind": "masked-lm"}}, "masked-lm trains no decoder that writes text"),
        ({"evaluation": {}, "promotion": {"guards": {"benchmark_fall": 0.1}}}, "benchmark_fall needs evaluation.bench"),
        ({"evaluation": {"benchmarks": {"tasks": ["a,b"]}}}, "'a,b' is no name of a task"),
        ({"evaluation": {"benchmarks": {"tasks": ["a", "a"]}}}, "a task is named twice"),
        ({"evaluation": {"benchmarks": {"tasks": []}}}, "tasks"),
    ],
)
def test_what_cannot_be_benchmarked_is_refused(place: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(place, **sections)
