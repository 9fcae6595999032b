"""A disk that fills up, and checkpoints that were damaged, in the middle of a training."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone.errors import CheckpointError, StoreError
from hone.training import launch
from tests.tiny_bases import tiny_bert
from tests.tiny_training import specification, write_tokens

Event = dict[str, Any]
pytestmark = pytest.mark.slow


class InterruptError(BaseException):
    """The run was stopped."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokens(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"), base)


@pytest.fixture(scope="module")
def interrupted(base: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped when it had two checkpoints."""
    out = tmp_path_factory.mktemp("interrupted") / "out"

    def stop(event: Event) -> None:
        if event["type"] == "checkpoint" and event["step"] == 5:
            raise InterruptError

    with pytest.raises(InterruptError):
        train(tokens, out, base, stop)
    assert len(list((out / "checkpoints").glob("step-*"))) == 2
    return out


def train(tokens: Path, out: Path, base: Path, on_event: Any = launch.ignore) -> None:
    spec = specification(tokens, out, base, checkpoint_seconds=0)
    parts = {name: spec[name] for name in ("objective", "method", "settings")}
    launch.train(tokens, out, base=base, on_event=on_event, **parts)


@pytest.mark.usefixtures("forked_children")
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    base: Path, tokens: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(interrupted, tmp_path / "out")
    older, newest = sorted(out.glob("checkpoints/step-*"))
    (newest / "optimizer.safetensors").write_bytes(b"")
    events: list[Event] = []
    train(tokens, out, base, events.append)
    assert next(e["step"] for e in events if e["type"] == "resumed") == int(older.name.removeprefix("step-"))
    assert "a damaged checkpoint is skipped" in (out / "train.log").read_text("utf8")


@pytest.mark.usefixtures("forked_children")
def test_where_all_are_damaged_the_error_says_what_to_delete(
    base: Path, tokens: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(interrupted, tmp_path / "out")
    for file in out.glob("checkpoints/step-*/weights.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError) as fault:
        train(tokens, out, base)
    assert str(fault.value).startswith(f"{out / 'checkpoints'}: no checkpoint can be read")
    shutil.rmtree(out / "checkpoints")
    train(tokens, out, base)
    assert (out / "model" / "model.safetensors").is_file()


@contextmanager
def full_disk() -> Iterator[None]:
    """Within the block files of this process and its children fail to grow beyond 20 kB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_and_what_was_finished_is_kept(
    base: Path, tokens: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(interrupted, tmp_path / "out", ignore=shutil.ignore_patterns("checkpoints"))
    with full_disk(), pytest.raises(StoreError) as fault:
        train(tokens, out, base)
    assert "training could not write" in str(fault.value)
    assert "Free or extend the disk" in str(fault.value)
    assert not list(out.glob("checkpoints/step-*"))
