"""Nothing that tests start outlives them, however they end.

SIGTERM lets finalizers run, as an interruption does. What they miss, or have no time for, ends a guard: it holds one
end of a pipe, and when the process of the tests has closed the other, it ends all processes that carry its mark in
their environment, which children inherit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import pytest

MARK = "TESTS_GUARD"
GRACE_SECONDS = 10.0


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the tests in order; start the guard where tests run."""
    signal.signal(signal.SIGTERM, _end)
    if (
        signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    ):  # started in a shell's background: children would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process hands tests out and runs none
    mark = f"{os.getpid()}-{os.urandom(4).hex()}"
    guard = [sys.executable, "-P", __file__, mark]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    process = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True, env=environment)
    os.environ[MARK] = mark
    config.add_cleanup(lambda: (process.stdin.close(), process.wait()))  # type: ignore[union-attr,func-returns-value]


def _end(number: int, _: FrameType | None) -> None:
    import pytest

    pytest.exit(signal.Signals(number).name, returncode=128 + number)


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes that carry the mark."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                yield process
        except (psutil.Error, OSError):
            continue


def guard(mark: str) -> None:
    """Wait for the end of the tests, and end what is left of them."""
    sys.stdin.read()
    asked = list(marked(mark))
    for process in asked:
        process.terminate()
    psutil.wait_procs(asked, GRACE_SECONDS)
    while left := list(marked(mark)):
        for process in left:
            process.kill()
        psutil.wait_procs(left, GRACE_SECONDS)


if __name__ == "__main__":
    guard(sys.argv[1])
