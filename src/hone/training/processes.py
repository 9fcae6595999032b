"""A child process in a group of its own: what it inherits, and its end. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import hone

# Seconds that an interrupted child has to end before it is killed.
GRACE = 5.0


def build_environment() -> dict[str, str]:
    """This process's environment, changed so that the child imports the same hone and writes its log unbuffered."""
    path = [str(Path(hone.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, and wait for it, so that no zombie is left."""
    try:
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process's group, if that still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
