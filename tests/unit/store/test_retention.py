"""What `hone gc` removes from a store, and what stays: in use, recent, needed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hone.store.artifact import Artifact, Product
from hone.store.layout import TRASH
from hone.store.recipe import Recipe
from hone.store.retention import (
    DAY,
    find_last_use,
    list_artifacts,
    list_old,
    list_trash,
    list_work,
    mark_used,
    measure_freed,
)
from hone.store.store import Store

RESUMABLE = {"train"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def before() -> float:
    """30 days ago."""
    return time.time() - 30 * DAY


def make_age(path: Path, days: float) -> None:
    """Let the directory and everything in it have been used last so many days ago."""
    moment = time.time() - days * DAY
    for entry in (*path.rglob("*"), path):
        os.utime(entry, (moment, moment))


def commit(store: Store, stage: str, days: float, config: int = 0) -> Artifact:
    """An artifact that was used last so many days ago."""

    def make(out: Path) -> Product:
        (out / "rows").write_text(f"rows {config}")
        return Product(1, ("rows",))

    artifact, _ = store.obtain(Recipe(stage, {"config": config}, {}, {}, {}), make)
    make_age(artifact.path, days)
    return artifact


def list_names(garbage: Any) -> list[str]:
    return [item.name for item in garbage]


def nothing(_: Any) -> bool:
    return False


def test_artifacts_stay_that_were_used_or_are_needed(store: Store, before: float) -> None:
    old, recent, needed = commit(store, "curate", 31), commit(store, "curate", 29, 1), commit(store, "train", 400)
    listed = list(list_artifacts(store, before, lambda manifest: manifest["digest"] == needed.digest))
    # Both have one content: what a version is tagged with is the digest.
    assert old.digest == needed.digest and not listed
    listed = list(list_artifacts(store, before, lambda manifest: manifest["stage"] == "train"))
    assert list_names(listed) == [f"curate-{old.key}"]
    assert listed[0].reason == "not used for 31 days"
    assert [item.remove() for item in listed] == [True]
    assert store.find("curate", old.key) is None
    assert store.find("curate", recent.key) == recent and store.find("train", needed.key) == needed


def test_an_artifact_that_a_run_uses_in_the_meantime_stays(store: Store, before: float) -> None:
    artifact = commit(store, "curate", 31)
    [item] = list_artifacts(store, before, nothing)
    with store.lock("curate", artifact.key):
        assert not item.remove()
    mark_used([artifact.path])
    assert not item.remove()
    assert store.find("curate", artifact.key) == artifact


def test_what_a_long_training_s_run_has_made_stays_while_it_runs(store: Store, before: float) -> None:
    mine, other = commit(store, "tokenize", 40), commit(store, "tokenize", 50, 1)
    work = store.work_directory("train", "1a2b")
    work.mkdir(parents=True)
    make_age(work, 40)
    with store.lock("train", "1a2b"):
        assert list_names(list_artifacts(store, before, nothing)) == [f"tokenize-{other.key}"]
        assert not list(list_work(store, before, RESUMABLE))
    assert mine.key in " ".join(list_names(list_artifacts(store, before, nothing)))


def test_work_is_removed_when_nobody_can_or_does_resume_it(store: Store, before: float) -> None:
    for name, days in (("train-old", 31), ("train-recent", 29), ("curate-killed", 0)):
        (store.root / "work" / name / "checkpoints").mkdir(parents=True)
        make_age(store.root / "work" / name, days)
    listed = list(list_work(store, before, RESUMABLE))
    assert [(item.kind, item.name) for item in listed] == [
        ("work of killed stages", "curate-killed"),
        ("interrupted trainings", "train-old"),
    ]
    # A checkpoint written since: the training was resumed.
    (store.root / "work" / "train-old" / "checkpoints" / "step-1").mkdir()
    assert [item.remove() for item in listed] == [True, False]
    assert sorted(path.name for path in (store.root / "work").iterdir()) == ["train-old", "train-recent"]


def test_a_killed_removal_leaves_nothing_that_looks_complete_and_is_finished_by_the_next(
    store: Store, before: float
) -> None:
    artifact = commit(store, "train", 31)
    # The process ends as by `kill -9` when it starts to delete files.
    code = (
        "import os, shutil, sys; from pathlib import Path; from hone.store import retention\n"
        "from hone.store.store import Store\n"
        "shutil.rmtree = lambda *_, **__: os._exit(9)\n"
        "[item] = retention.list_artifacts(Store(Path(sys.argv[1])), float(sys.argv[2]), lambda _: False)\n"
        "item.remove()"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store.root), str(before)])
    assert killed.returncode == 9
    assert store.find("train", artifact.key) is None and not store.list_manifests("train")
    [leftover] = list_trash(store.root)
    assert (leftover.paths[0] / "manifest.json").is_file()
    assert leftover.remove() and not list((store.root / TRASH).iterdir())
    # The stage runs again, in the same place.
    assert commit(store, "train", 0).digest == artifact.digest


def test_two_removals_at_once_remove_once(store: Store, before: float) -> None:
    commit(store, "train", 31)
    [first], [second] = list_artifacts(store, before, nothing), list_artifacts(store, before, nothing)
    assert (first.remove(), second.remove()) == (True, False)


def test_old_entries_of_a_folder_are_removed_and_recent_ones_stay(tmp_path: Path, before: float) -> None:
    for name, days in (("demo-1", 31), ("demo-2", 29)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("weights")
        make_age(tmp_path / name, days)
    listed = list(list_old(tmp_path, "downloads", before))
    assert list_names(listed) == ["demo-1"] and listed[0].remove()
    assert [path.name for path in tmp_path.iterdir() if path.name != TRASH] == ["demo-2"]
    assert not list(list_old(tmp_path, "downloads", before))


def test_a_file_with_a_link_elsewhere_frees_nothing(tmp_path: Path) -> None:
    stored, logged = tmp_path / "stored", tmp_path / "logged"
    stored.write_bytes(b"x" * 1000)
    os.link(stored, logged)
    assert [measure_freed(paths) for paths in ([stored], [logged], [stored, logged])] == [0, 0, 1000]


def test_a_clock_that_jumps_back_removes_nothing_early(store: Store, before: float) -> None:
    commit(store, "curate", 29)
    # An hour later by the wall clock, which was set back by an hour in the meantime.
    assert not list(list_artifacts(store, before - 3600, nothing))
    assert find_last_use(store.root / "nowhere") == float("inf")
