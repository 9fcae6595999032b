"""Processes whose imports are paid once: `python()` and `hone()` stand for the interpreter and the command.

Four fifths of the time of a `hone run` on a tiny model are imports. A process of the tests starts one fork server
(server.py) at the first use, and what it starts by these two is forked from it, children included: they see `python()`
as `sys.executable`. What is about processes themselves (killed, resumed, a new user's first minutes) takes the plain
interpreter.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from hone.environment import DEFAULTS

HERE = Path(__file__).parent


def python() -> str:
    """The command to give in place of `sys.executable`."""
    return str(_started() / "python")


def hone() -> str:
    """The command `hone`."""
    return str(_started() / "hone")


def plain_hone() -> str:
    """The command `hone` as it is installed."""
    return str(Path(sys.executable).with_name("hone"))


@lru_cache(maxsize=1)
def _started() -> Path:
    """The folder of the launchers, with a fork server that ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="hone-"))  # not pytest's: a socket's path has 107 characters at most
    text = f"#!{sys.executable} -IS\n{(HERE / 'launcher.py').read_text('utf8')}"
    for name in ("python", "hone"):
        (folder / name).write_text(text, "utf8")
        (folder / name).chmod(0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    log = folder / "log"
    server = subprocess.Popen(
        [sys.executable, "-P", str(HERE / "server.py"), str(folder / "socket")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        env=environment | DEFAULTS | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]},
        start_new_session=True,
    )
    assert server.stdin and server.stdout
    assert server.stdout.readline() == b"ready\n", log.read_text("utf8")
    atexit.register(shutil.rmtree, folder)
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return folder
