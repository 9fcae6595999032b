"""What tests started does not outlive them, in a real pytest that is ended from outside."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polling import until

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.ending import pytest_configure as pytest_configure"
# Its fixture forgets what it started.
TESTS = """
import pathlib, subprocess, threading
import pytest

@pytest.fixture
def started():
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process.pid
    pathlib.Path("finalized").touch()

def test_it(started):
    pathlib.Path("writing").write_text(str(started))
    pathlib.Path("writing").rename("begun")
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("how", "words", "finalized"),
    [
        (signal.SIGTERM, ("-p", "no:xdist"), True),
        (signal.SIGTERM, ("-n", "1"), None),  # xdist's processes may have no time for it
        (signal.SIGKILL, ("-p", "no:xdist"), False),
    ],
    ids=["SIGTERM", "SIGTERM-xdist", "SIGKILL"],
)
def test_ended_tests_leave_no_process(
    how: signal.Signals, words: tuple[str, ...], finalized: bool | None, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), *words, "test_it.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as tests:
        until(lambda: (tmp_path / "begun").exists() or tests.poll() is not None)
        assert tests.poll() is None, tests.communicate()
        started = os.pidfd_open(int((tmp_path / "begun").read_text()))
        tests.send_signal(how)
        assert select.select([started], [], [], 120)[0]
        os.close(started)
    assert finalized in (None, (tmp_path / "finalized").exists())
