"""A disk that is full during each stage: one error, and the stage is made from there once there is room again."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import StoreError
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages
from tests import preloaded
from tests.polling import until
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
    if request.param == "a limit on files":
        folder = tmp_path / "disk"
        folder.mkdir()
        yield folder, limit_files
        return
    folder = request.getfixturevalue("mount")
    yield folder, lambda: filled(folder)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file system of 64 MiB."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
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


@contextmanager
def mounted_read_only(folder: Path) -> Iterator[None]:
    # Refused while the server of the command before has its log open.
    until(lambda: not subprocess.run(["mount", "-o", "remount,ro", folder], capture_output=True).returncode)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


@contextmanager
def filled_to_the_last_byte(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    yield
    filler.unlink()


@pytest.mark.parametrize("fault", [mounted_read_only, filled_to_the_last_byte])
def test_a_command_on_a_disk_that_cannot_be_written_ends_with_one_error_or_needs_no_writing(
    fault: Callable[[Path], AbstractContextManager[None]], mount: Path, tmp_path: Path
) -> None:
    training = {"epochs": 1.0, "batch_size": 16, "precision": "fp32"}
    tree = tiny_config(tmp_path, topic_rows(tmp_path / "rows.csv", 200, label="label"), training=training)
    conf, home = tmp_path / "tiny.yaml", mount / "hone"
    conf.write_text(yaml.safe_dump(tree))
    home.mkdir(0o700)
    assert run_hone(home, "run", conf).returncode == 0
    for words, status in (
        (["plan", conf], 0),
        (["history", tree["name"]], 0),
        (["run", conf], 0),
        (["run", conf, "training.seed=2"], 7),
        (["promote", tree["name"], "--yes"], 7),
    ):
        with fault(mount):
            done = run_hone(home, *words)
        assert done.returncode == status, (words, done.stderr)
        if status:
            error, fix, page = done.stderr.splitlines()
            assert error.startswith("hone: ") and str(mount) in error
            assert any(reason in error for reason in (*REASONS, "Read-only", "readonly")), error
            assert "make it writable" in fix
            assert page == "  See docs/operations.md."
        else:
            assert done.stderr == ""


def run_hone(home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HONE_"))}
    own = {"HONE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [preloaded.hone(), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=inherited | own, cwd=home.parents[1])
