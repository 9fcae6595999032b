"""A forked process is as one of the plain interpreter, but for its imports."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import preloaded

LOOKS = """
import os, sys
import mlflow
sys.path.remove('')
print(sys.argv, os.getcwd(), os.environ['ANIMAL'], sys.path[0], sys.stdin.read(), flush=True)
os.write(int(sys.argv[1]), b'written')
print('to stderr', file=sys.stderr)
sys.exit(7)
"""
WAITS = """
import os, time
import mlflow
print(os.getpid(), flush=True)
time.sleep(600)
"""


@contextmanager
def waiting(python: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Within the block a process waits: what was started, and a handle of the one that does it."""
    with subprocess.Popen([python, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        handle = os.pidfd_open(int(process.stdout.readline()))
        try:
            yield process, handle
        finally:
            process.kill()
            os.close(handle)


@pytest.fixture(params=["plain", "forked"])
def python(request: pytest.FixtureRequest) -> str:
    """What is started, first by Python itself, to see what is expected."""
    return sys.executable if request.param == "plain" else preloaded.python()


def test_it_has_the_words_the_environment_the_directory_and_the_descriptors(python: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    done = subprocess.run(
        [python, "-c", LOOKS, str(writing)],
        env=os.environ | {"ANIMAL": "otter", "PYTHONPATH": "/nowhere"},
        cwd=tmp_path,
        input="asked",
        pass_fds=(writing,),
        capture_output=True,
        text=True,
    )
    os.close(writing)
    with open(reading) as pipe:  # noqa: PTH123
        assert pipe.read() == "written"
    assert done.stdout == f"['-c', '{writing}'] {tmp_path} otter /nowhere asked\n"
    assert "to stderr\n" in done.stderr
    assert done.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it(python: str, number: signal.Signals) -> None:
    with waiting(python) as (process, handle):
        process.send_signal(number)
        assert process.wait(60) == -number
        assert select.select([handle], [], [], 60)[0]


def test_it_is_told_how_it_was_killed(python: str) -> None:
    with waiting(python) as (process, handle):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL


def test_an_error_has_its_traceback(python: str) -> None:
    done = subprocess.run([python, "-c", "import hone\nraise ValueError('wrong')"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith('  File "<string>", line 2, in <module>\nValueError: wrong\n')


def test_its_children_are_forked_and_those_that_need_no_library_are_not() -> None:
    code = "import hone, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    for script, forked in (("import mlflow, sys; print('torch' in sys.modules)", True), ("print(False)", False)):
        done = subprocess.run([preloaded.python(), "-c", code, script], capture_output=True, text=True)
        assert done.stdout == f"{forked}\n", done.stderr


def test_what_a_library_reads_at_its_import_is_not_missed() -> None:
    code = "import hone, sys; print('torch' in sys.modules)"
    environment = os.environ | {"HF_MODULES_CACHE": "/nowhere"}
    done = subprocess.run([preloaded.python(), "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "False\n"
