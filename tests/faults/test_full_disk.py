"""A disk that is full during each stage: one error, and the stage is made from there once there is room again."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import StoreError
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages
from tests.small_line import topic_rows
from tests.tiny_versions import config as tiny_config

pytestmark = pytest.mark.slow

Full = Callable[[], AbstractContextManager[None]]
FREE = 8_192  # bytes of a full disk
REASONS = ("No space left", "File too large", "disk I/O error", "disk is full")
LARGEST = 500  # bytes of a file, less than a manifest has


@pytest.fixture(params=["a file system of 64 MiB", "a limit on files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A folder, and a block within which its disk is full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a limit on files":
        yield folder, limit_files
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder, lambda: filled(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    filler, free = folder / "filler", os.statvfs(folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - FREE)
    yield
    filler.unlink()


@contextmanager
def limit_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_each_stage_says_that_the_disk_is_full_and_is_made_once_there_is_room(
    disk: tuple[Path, Full], tmp_path: Path
) -> None:
    folder, full = disk
    training = {"epochs": 1.0, "batch_size": 16, "precision": "fp32"}
    config = parse_config(
        tiny_config(tmp_path, topic_rows(tmp_path / "rows.csv", 200, label="label"), training=training)
    )
    home, elsewhere = Home(folder / "hone"), Home(tmp_path / "elsewhere")
    made: dict[str, Any] = {}
    expected: dict[str, Any] = {}
    for stage in list_stages(config):
        with full(), pytest.raises(StoreError) as fault:
            run_stage(stage, Job(config, made, home))
        message = str(fault.value)
        assert any(reason in message for reason in REASONS), message
        assert fault.value.fix and len(message.splitlines()) < 12, message
        made[stage] = run_stage(stage, Job(config, made, home))
        assert not home.store.verify(made[stage])
        expected[stage] = run_stage(stage, Job(config, expected, elsewhere))
    for stage in ("ingest", "curate", "tokenize", "train"):
        assert made[stage].digest == expected[stage].digest
    assert made["register"].facts()["version"] == "1"
