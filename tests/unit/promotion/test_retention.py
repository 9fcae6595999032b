"""Which versions stay in MLflow, and what is left of those that do not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hone.promotion.champion import Standing, move_champion
from hone.promotion.journal import ENTRY, Journal
from hone.promotion.retention import list_garbage, list_unneeded, read_registry
from hone.registry import integrity
from hone.tracking.client import connect, default_tracking_uri
from hone.tracking.files import link_file
from hone.tracking.reader import find_local_path
from hone.tracking.run_log import TRAIN_KEY

MODEL = "topics"
TAGS = {integrity.TAG: "0" * 64}  # of a version that Hone registered


@pytest.fixture
def client(tracking_uri: str) -> Any:
    made = connect(tracking_uri)
    made.create_registered_model(MODEL)
    return made


def start_run(client: Any, key: str) -> Any:
    """A finished training run with rows."""
    experiment = client.get_experiment_by_name("hone")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("hone")
    run = client.create_run(experiment_id, run_name=MODEL, tags={TRAIN_KEY: key})
    client.log_text(run.info.run_id, "rows", "splits/test.parquet")
    client.set_terminated(run.info.run_id)
    return client.get_run(run.info.run_id)


def register(client: Any, tmp_path: Path, run: Any = None) -> Any:
    """A version as `register` makes it, with its logged model."""
    run = run or start_run(client, f"key-{time.time_ns()}")
    logged = client.create_logged_model(run.info.experiment_id, name=MODEL, source_run_id=run.info.run_id)
    weights = tmp_path / "weights"
    weights.write_text("weights")
    link_file(weights, find_files(logged) / "weights")
    client.finalize_logged_model(logged.model_id, "READY")
    source, run_id = f"models:/{logged.model_id}", run.info.run_id
    with default_tracking_uri(client.tracking_uri):
        return client.create_model_version(MODEL, source, run_id, tags=TAGS, model_id=logged.model_id)


def get_logged_model(client: Any, version: Any) -> Any:
    return client.get_logged_model(version.source.removeprefix("models:/"))


def find_files(logged: Any) -> Path:
    place = find_local_path(logged.artifact_location)
    assert place
    return place


def list_numbers(client: Any, keep: int = 1, before: float | None = None) -> list[int]:
    registry = read_registry(client.tracking_uri)
    unneeded = list_unneeded(registry, keep, time.time() + 1 if before is None else before)
    return sorted(int(version.version) for version in unneeded)


def test_everything_that_someone_needs_stays(client: Any, tmp_path: Path) -> None:
    base = f"models:/{MODEL}/2"
    added: dict[int, dict[str, str]] = {3: {"hone.base_model": base}, 8: {"reviewed_by": "Ada"}}
    for number in range(1, 13):
        client.create_model_version(MODEL, str(tmp_path), tags=TAGS | added.get(number, {}))
    for alias, number in (("previous", 3), ("champion", 4), ("candidate", 5), ("customer-a", 6)):
        client.set_registered_model_alias(MODEL, alias, str(number))
    client.update_model_version(MODEL, "9", description="Keep this one for the audit. Ada")
    client.delete_model_version_tag(MODEL, "10", integrity.TAG)  # as of a version that Hone did not register
    journal = Journal(client, MODEL)
    with journal.claim() as claim:
        moved: dict[str, Any] = {"who": "Ada", "action": "promoted", "why": "", "figures": {}, "previous": "4"}
        journal.write(claim, from_version="4", to_version="7", **moved)  # begun, and killed before the alias moved
    # 2 is the base of 3, and 12 is the newest.
    assert list_numbers(client) == [1, 11]
    assert list_numbers(client, keep=2) == [1]
    assert list_numbers(client, before=time.time() - 3600) == []


def test_all_versions_of_a_model_stay_whose_journal_cannot_be_read(client: Any, tmp_path: Path) -> None:
    for _ in range(3):
        register(client, tmp_path)
    move_champion(
        Journal(client, MODEL), Standing("", "", 0), "1", action="promoted", who="", why="", figures={}, previous=""
    )
    client.delete_registered_model_alias(MODEL, "champion")
    assert [version.version for version in list_unneeded(read_registry(client.tracking_uri), 1, time.time() + 1)] == [2]
    [record] = Journal(client, MODEL).records()
    client.set_tag(record.run_id, ENTRY, "{")
    assert not list_unneeded(read_registry(client.tracking_uri), 1, time.time() + 1)


def test_a_version_goes_with_its_run_and_its_files(client: Any, tmp_path: Path) -> None:
    first, second = register(client, tmp_path), register(client, tmp_path)
    folders = [find_files(get_logged_model(client, version)) for version in (first, second)]
    [garbage], remaining = list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda _: False)
    assert garbage.name == f"{MODEL} version 1" and len(garbage.paths) == 2
    assert [version.version for version in remaining.versions] == [second.version]
    assert client.get_model_version(MODEL, "1")  # listing removes nothing
    assert garbage.remove()
    assert [version.version for version in client.search_model_versions(f"name='{MODEL}'")] == [second.version]
    assert client.get_run(first.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(second.run_id).info.lifecycle_stage == "active"
    assert [folder.exists() for folder in folders] == [False, True]
    # The store's own link of the weights is as it was.
    assert (tmp_path / "weights").read_text() == "weights"


def test_a_version_that_is_promoted_in_the_meantime_stays(client: Any, tmp_path: Path) -> None:
    first = register(client, tmp_path)
    register(client, tmp_path)
    [garbage], _ = list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda _: False)
    client.set_registered_model_alias(MODEL, "champion", "1")
    assert not garbage.remove()
    assert (find_files(get_logged_model(client, first)) / "weights").is_file()


def test_a_run_that_another_version_needs_stays(client: Any, tmp_path: Path) -> None:
    run = start_run(client, "shared")
    first, second = register(client, tmp_path, run), register(client, tmp_path, run)
    # A person registered the logged model of the second under a name of their own, without a run.
    third = register(client, tmp_path)
    client.create_registered_model("copies")
    with default_tracking_uri(client.tracking_uri):
        client.create_model_version("copies", third.source, model_id=get_logged_model(client, third).model_id)
    register(client, tmp_path)
    garbage, _ = list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda _: False)
    by_name = {item.name: item for item in garbage}
    assert by_name.keys() == {f"{MODEL} version {number}" for number in (1, 2, 3)}
    assert by_name[f"{MODEL} version 1"].remove() and by_name[f"{MODEL} version 3"].remove()
    assert (find_files(get_logged_model(client, third)) / "weights").is_file()
    assert client.get_run(third.run_id).info.lifecycle_stage == "active"
    # Versions 1 and 2 have one run, and both go.
    assert by_name[f"{MODEL} version 2"].remove()
    assert client.get_run(first.run_id).info.lifecycle_stage == "deleted" and first.run_id == second.run_id


def test_a_run_whose_training_the_store_uses_stays_with_its_version(client: Any, tmp_path: Path) -> None:
    register(client, tmp_path, start_run(client, "used"))
    register(client, tmp_path)
    start_run(client, "used")
    garbage, remaining = list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda key: key == "used")
    assert not garbage and len(remaining.versions) == 2


def test_what_a_killed_removal_leaves_is_removed_by_the_next(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = register(client, tmp_path)
    register(client, tmp_path)
    logged = get_logged_model(client, first)
    [garbage], _ = list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda _: False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hone.promotion.retention.delete_files", _interrupt)
        garbage.remove()
    # A registration of the same training uploads the model again: it is not ready.
    assert get_logged_model(client, first).status == "FAILED"
    [leftover], _ = list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda _: False)
    assert (leftover.kind, leftover.name) == ("runs without a version", f"{MODEL} {first.run_id}")
    assert leftover.remove()
    assert not find_files(logged).exists()
    assert list_garbage(read_registry(client.tracking_uri), 1, time.time() + 1, lambda _: False)[0] == []


def test_runs_that_are_running_recent_or_not_of_a_training_stay(client: Any, tmp_path: Path) -> None:
    run = start_run(client, "running")
    client.update_run(run.info.run_id, status="RUNNING")
    client.create_run(run.info.experiment_id, run_name="a person's")
    recent = start_run(client, "recent")
    now = recent.info.end_time / 1000
    assert list_garbage(read_registry(client.tracking_uri), 1, now, lambda _: False)[0] == []
    [garbage], _ = list_garbage(read_registry(client.tracking_uri), 1, now + 1, lambda _: False)
    assert garbage.name == f"{MODEL} {recent.info.run_id}"


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
