"""A sweep of a tiny classifier: its trials, what it leaves in the store and in MLflow, how it goes on after kills."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config, set_values
from hone.config.sections import RunConfig
from hone.drift.retraining import take_swept_values
from hone.environment import Home
from hone.errors import HoneError
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.pipeline.stages.sweep import choose_config
from hone.progress import Progress, listening
from hone.store import layout
from hone.store.artifact import Artifact
from hone.sweep.watch import Watch
from hone.tracking.client import connect
from tests.in_process import begin
from tests.small_line import topic_base, topic_rows

SPACE = {
    "training.learning_rate": {"low": 1.0e-4, "high": 0.02, "log": True},
    "training.batch_size": [8, 16],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sweep")
    return topic_base(root / "base", positions=64), topic_rows(root / "rows.csv", 240, label="label")


def make_config(places: tuple[Path, Path], **sweep: Any) -> RunConfig:
    base, rows = places
    return parse_config(
        {
            "name": "topics",
            "ingest": {"source": {"kind": "files", "paths": [str(rows)]}},
            "curation": {"steps": [], "split": {"valid": 0.3, "test": 0.2}},
            "model": {"base": str(base)},
            "tokenization": {"max_length": 32},
            "training": {"epochs": 4, "evaluations": 3},
            "evaluation": {"resamples": 100, "slices": []},
            "sweep": {"trials": 6, "space": SPACE} | sweep,
        }
    )


def sweep(config: RunConfig, home: Home) -> Artifact:
    made: dict[str, Artifact] = {}
    for stage in ("ingest", "curate", "sweep"):
        made[stage] = run_stage(stage, Job(config, made, home))
    return made["sweep"]


def outcomes(artifact: Artifact) -> list[dict[str, Any]]:
    """The trials without what differs from run to run."""
    return [
        {name: value for name, value in trial.items() if name != "seconds"}
        for trial in artifact.read_json(layout.SWEEP)["trials"]
    ]


def go(config: RunConfig, home: Home) -> tuple[Artifact, dict[str, Artifact]]:
    """A sweep, and the line with the best values."""
    tried = sweep(config, home)
    best = choose_config(config, tried)
    made: dict[str, Artifact] = {"sweep": tried}
    for stage in list_stages(best):
        made[stage] = run_stage(stage, Job(best, made, home))
    return tried, made


@pytest.fixture(scope="module")
def swept(places: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """A sweep of six trials that may end early, undisturbed, and the version that came of it."""
    with pytest.MonkeyPatch.context() as changes:
        home = begin(tmp_path_factory.mktemp("swept") / "hone", changes).home
        config = make_config(places, trials=6, prune={"after_evaluations": 1, "after_trials": 2})
        tried, made = go(config, home)
        yield Swept(config, home, tried, made)


@dataclass(frozen=True)
class Swept:
    config: RunConfig
    home: Home
    tried: Artifact
    made: dict[str, Artifact]


def test_the_best_trial_is_trained_once_and_is_the_version(swept: Swept) -> None:
    result = swept.tried.read_json(layout.SWEEP)
    values = [trial["value"] for trial in result["trials"] if trial["state"] == "complete"]
    best = result["trials"][result["best"]]
    assert best["value"] == max(values) > min(values)
    assert swept.made["train"].key == best["key"]
    assert (
        swept.made["train"].manifest()["recipe"]["config"]["training"]["batch_size"]
        == best["values"]["training.batch_size"]
    )
    trained = {manifest["key"] for manifest in swept.home.store.list_manifests("train")}
    assert trained == {trial["key"] for trial in result["trials"] if trial["state"] == "complete"}
    # Only the best is measured on test rows.
    assert len(swept.home.store.list_manifests("evaluate")) == 1


def test_a_trial_that_ends_early_leaves_no_work_and_its_run_says_so(swept: Swept) -> None:
    trials = swept.tried.read_json(layout.SWEEP)["trials"]
    [ended, *_] = [trial for trial in trials if trial["state"] == "pruned"]
    assert len(ended["evaluations"]) < 3
    assert not swept.home.store.work_directory("train", ended["key"]).exists()
    client = connect(swept.home.tracking_uri)
    [run] = client.search_runs(["1"], f"tags.`hone.train_key` = '{ended['key']}'")
    assert (run.info.status, run.data.tags["hone.trial_state"]) == ("KILLED", "pruned")


def test_mlflow_has_the_trials_under_one_parent(swept: Swept) -> None:
    client = connect(swept.home.tracking_uri)
    trials = swept.tried.read_json(layout.SWEEP)["trials"]
    [parent] = client.search_runs(["1"], f"tags.`hone.sweep_key` = '{swept.tried.key}'")
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(int(run.data.tags["hone.trial"]) for run in children) == list(range(6))
    assert parent.info.status == "FINISHED"
    points = client.get_metric_history(parent.info.run_id, "accuracy")
    assert {point.step: point.value for point in points} == {
        trial["number"]: trial["value"] for trial in trials if trial["state"] == "complete"
    }
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == [layout.SWEEP]


def test_the_version_and_its_report_say_what_was_tried(swept: Swept) -> None:
    facts = swept.made["register"].facts()
    version = connect(swept.home.tracking_uri).get_model_version("topics", facts["version"])
    best = swept.tried.facts()["best"]
    assert json.loads(version.tags["hone.sweep_values"]) == best["changes"]
    assert version.tags["hone.sweep_trials"] == "6"
    report = (swept.made["register"].path / layout.REPORT).read_text("utf8")
    assert "6 trials" in report
    assert f"Trial {best['number']} is the best by validation accuracy" in report
    assert "this figure is optimistic" in report


def test_retraining_takes_the_values_of_the_latest_sweep_if_that_is_asked_for(swept: Swept) -> None:
    uri, best = swept.home.tracking_uri, swept.tried.facts()["best"]["changes"]
    assert take_swept_values(swept.config, uri) == swept.config
    config = take_swept_values(set_values(swept.config, {"sweep.reuse": True}), uri)
    training = config.training.model_dump()
    assert {f"training.{name}": training[name] for name in ("learning_rate", "batch_size")} == best
    assert config.sweep.reused == best
    # The version that comes of it says so, and passes the values on.
    made: dict[str, Artifact] = {}
    for stage in list_stages(config):
        made[stage] = run_stage(stage, Job(config, made, swept.home))
    tags = connect(uri).get_model_version("topics", made["register"].facts()["version"]).tags
    assert (json.loads(tags["hone.sweep_values"]), tags["hone.sweep_reused"]) == (best, "true")
    unswept = set_values(config, {"registration.model": "another", "sweep.reused": {}})
    assert take_swept_values(unswept, uri) == unswept


def test_a_repeated_sweep_makes_nothing(swept: Swept) -> None:
    started: list[str] = []

    def listen(stage: str, event: str, detail: object) -> None:
        if event == "started":
            started.append(stage)

    with listening(listen):
        tried, made = go(swept.config, swept.home)
    assert (tried, made, started) == (swept.tried, swept.made, [])


def test_a_lost_record_is_rebuilt_from_the_store(swept: Swept) -> None:
    """The trials are those of before; the complete ones are not trained again."""
    before = outcomes(swept.tried)
    swept.home.store.discard(swept.tried)
    trained: list[str] = []

    def listen(stage: str, event: str, detail: object) -> None:
        if (stage, event) == ("train", "started"):
            trained.append(stage)

    with listening(listen):
        again = sweep(swept.config, swept.home)
    assert outcomes(again) == before
    assert len(trained) == sum(trial["state"] == "pruned" for trial in before)


class Killed(BaseException):
    """As a kill: nothing handles it."""


SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 8))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sweep_killed_within_trainings_ends_with_the_same_trials(
    swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    home = begin(tmp_path / "hone", monkeypatch).home
    draw, kills = random.Random(seed), 0
    hear = Watch.hear

    def die_at_times(watch: Any, event: Any) -> None:
        if draw.random() < 0.03:
            raise Killed
        hear(watch, event)

    monkeypatch.setattr(Watch, "hear", die_at_times)
    # A checkpoint after each step: a killed training goes on where it was.
    config = set_values(swept.config, {"training.checkpoint_seconds": 0})
    for _ in range(60):
        try:
            tried = sweep(config, home)
        except Killed:
            kills += 1
            continue
        break
    assert kills
    assert outcomes(tried) == outcomes(swept.tried)


def test_values_that_the_rows_do_not_allow_are_a_failed_trial_and_not_the_end(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = begin(tmp_path / "hone", monkeypatch).home
    config = make_config(
        places, space={"training.max_steps": [1, 2], "tokenization.max_length": [4, 32]}, sampler="grid"
    )
    reports: list[tuple[str, Progress]] = []

    def listen(stage: str, event: str, detail: object) -> None:
        if isinstance(detail, Progress):
            reports.append((stage, detail))

    with listening(listen):
        tried = sweep(config, home)
    trials = tried.read_json(layout.SWEEP)["trials"]
    assert [trial["state"] for trial in trials] == ["failed", "complete"] * 2
    # Each stage reports its own progress.
    assert [(report.unit, report.done) for stage, report in reports if stage == "sweep"] == [
        ("trials", done) for done in range(5)
    ]
    assert {report.unit for stage, report in reports if stage == "train"} == {"steps"}
    assert "truncated" in trials[0]["reason"]
    assert STAGES["sweep"].list_warnings(tried)[0].startswith("trial 0 failed: ")


def test_without_validation_rows_there_is_nothing_to_compare(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = begin(tmp_path / "hone", monkeypatch).home
    config = set_values(make_config(places, trials=1), {"curation.split.valid": 0, "validation.min_rows_held_out": 1})
    with pytest.raises(HoneError, match="validation"):
        sweep(config, home)
