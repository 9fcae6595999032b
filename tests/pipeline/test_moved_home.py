"""A data folder that was moved, or restored from a backup elsewhere: its results are there, from the new place."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hone.config.file import load_config
from hone.environment import Home
from hone.pipeline.plan import plan_run
from hone.tracking.client import connect
from tests.in_process import Line
from tests.pickles import find_pickles

pytestmark = pytest.mark.slow


def move(folder: Path, other: Path) -> None:
    folder.rename(other)


def restore(folder: Path, other: Path) -> None:
    subprocess.run(["cp", "-a", folder, other], check=True)
    shutil.rmtree(folder)


def duplicate(folder: Path, other: Path) -> None:
    """The old folder stays, and is damaged: whatever is read of it is wrong."""
    subprocess.run(["cp", "-a", folder, other], check=True)
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


@pytest.mark.parametrize("relocate", [move, restore, duplicate])
def test_every_stage_of_a_run_is_found_at_the_new_place(
    relocate: Callable[[Path, Path], None], line: Line, conf: Path, tmp_path: Path
) -> None:
    made = line(conf)
    other = Home(tmp_path / "other disk" / "hone")
    other.root.parent.mkdir()
    relocate(line.home.root, other.root)
    plans = plan_run(load_config(conf), other)
    assert {plan.stage: plan.reasons for plan in plans if plan.artifact is None} == {}
    again = Line(other)(conf)
    assert [artifact.key for artifact in again.values()] == [artifact.key for artifact in made.values()]
    assert all(artifact.path.is_relative_to(other.root) for artifact in again.values())
    assert [str(version.version) for version in connect(other.tracking_uri).search_model_versions("name='small'")] == [
        "1"
    ]
    assert all(other.store.verify(artifact) == [] for artifact in again.values())
    # A change is trained from what is there, and registered beside it.
    Line(other)(conf, "training.epochs=1")
    numbers = {str(version.version) for version in connect(other.tracking_uri).search_model_versions("name='small'")}
    assert numbers == {"1", "2"}
    assert relocate is duplicate or not line.home.root.exists()


def test_nothing_in_the_store_is_a_pickle(line: Line, conf: Path) -> None:
    line(conf)
    line(conf, "method.kind=lora", "name=adapted")
    assert find_pickles(line.home.root) == []
    (line.home.root / "store" / "other").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.ones(1)}, line.home.root / "store" / "weights.pt")
    assert [file.name for file in find_pickles(line.home.root)] == ["other", "weights.pt"]
