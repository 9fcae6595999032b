"""`hone down` while a command of a terminal uses the servers: it asks, waits or ends them, and never guesses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hone.environment import Home
from hone_app.cli.main import main
from hone_app.service import processes
from hone_app.service.processes import Process
from hone_app.service.up import Record, write_record
from hone_app.terminal_runs import record_run
from tests import preloaded
from tests.terminal import type_command

MARK = "down/prefect"


class Used:
    """A data folder whose Prefect server is used by `hone run mine`, until `end`."""

    def __init__(self, folder: Path, server: Process) -> None:
        self.home, self.server = Home(folder), server
        write_record(self.home, Record("down", ports={"prefect": 4200, "mlflow": 5000}, parts={"prefect": server}))
        self._use = ExitStack()
        self._use.enter_context(record_run(self.home, "hone run mine", "http://127.0.0.1:4200/api"))
        self.environment = os.environ | {"HONE_HOME": str(folder)}
        self.command = f"`hone run mine` (process {os.getpid()})"

    def end(self) -> None:
        """The command ends."""
        self._use.close()


@pytest.fixture
def used(tmp_path: Path) -> Iterator[Used]:
    folder = tmp_path / "hone"
    folder.mkdir(0o700)
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    server, child = processes.start_process(sleeping, os.environ, tmp_path / "log", tmp_path, MARK)
    threading.Thread(target=child.wait, daemon=True).start()  # otherwise it is a zombie, which counts as running
    used = Used(folder, server)
    try:
        yield used
    finally:
        used.end()
        processes.end_marked(MARK)


def run_down(used: Used, *options: str) -> subprocess.CompletedProcess[str]:
    """`hone down` in a script."""
    command = [preloaded.hone(), "down", *options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=used.environment)


def test_a_person_who_says_now_ends_the_servers(used: Used, tmp_path: Path) -> None:
    printed, status = type_command(f"{preloaded.hone()} down", used.environment, tmp_path, ["now"])
    question = f"The service is used by {used.command}. End it now, or wait for that? [now/WAIT] now"
    assert status == 0, printed
    # The terminal breaks the line, within a word too.
    assert "".join(printed.split()) == "".join(f"{question}ended:prefect".split())
    assert not used.server.alive


@pytest.mark.parametrize("answer", ["", "wait", "no"])
def test_any_other_answer_waits(
    used: Used, answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HONE_HOME", str(used.home.root))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)

    def wait(*_: object) -> None:
        assert used.server.alive
        used.end()

    monkeypatch.setattr("hone_app.service.up.wait_for_end", wait)
    assert main(["down"]) == 0
    assert capsys.readouterr().out == f"waiting for {used.command}\nended: prefect\n"
    assert not used.server.alive


def test_wait_asks_nobody_and_ends_the_servers_after_the_command(used: Used) -> None:
    with subprocess.Popen(
        [preloaded.hone(), "down", "--wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=used.environment,
    ) as down:
        assert down.stdout
        assert down.stdout.readline() == f"waiting for {used.command}\n"
        assert used.server.alive
        used.end()
        assert down.communicate() == ("ended: prefect\n", None)
    assert down.returncode == 0
    assert not used.server.alive


def test_now_asks_nobody(used: Used) -> None:
    down = run_down(used, "--now")
    assert (down.returncode, down.stdout, down.stderr) == (0, "ended: prefect\n", "")
    assert not used.server.alive


def test_where_nobody_can_be_asked_it_is_refused_with_both_options(used: Used) -> None:
    down = run_down(used)
    assert (down.returncode, down.stdout) == (2, "")
    assert f"hone: the service: is used by {used.command}" in down.stderr
    assert "`hone down --wait`" in down.stderr and "`hone down --now`" in down.stderr
    assert used.server.alive
