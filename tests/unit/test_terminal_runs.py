"""Flow runs of commands that were killed are marked, those of living ones never."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Running

from hone.environment import Home
from hone_app.terminal_runs import list_live, mark_crashed, record_run

API = "http://127.0.0.1:4200/api"
# Records two flow runs and waits until its standard input ends.
COMMAND = """
import sys
from pathlib import Path
from hone.environment import Home
from hone_app.terminal_runs import record_run
with record_run(Home(Path(sys.argv[1])), "hone run mine", sys.argv[2]) as add_flow_run:
    for flow_run in sys.argv[3:]:
        add_flow_run(flow_run)
    print("recorded", flush=True)
    sys.stdin.read()
"""


@dataclass
class Server:
    """The flow runs that a Prefect server knows, as its client gives them."""

    states: dict[UUID, State[Any]] = field(default_factory=dict)

    def read_flow_run(self, flow_run: UUID) -> Any:
        if flow_run not in self.states:
            raise ObjectNotFound(Exception())
        return SimpleNamespace(state=self.states[flow_run])

    def set_flow_run_state(self, flow_run: UUID, state: State[Any], force: bool) -> None:
        assert force
        self.states[flow_run] = state


def command(home: Path, *flow_runs: UUID) -> subprocess.Popen[str]:
    """A command that has recorded its flow runs."""
    words = [sys.executable, "-c", COMMAND, str(home), API, *map(str, flow_runs)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "recorded\n"
    return process


def test_the_running_flow_runs_of_a_killed_command_are_marked_as_crashed_once_and_no_others(tmp_path: Path) -> None:
    home, (killed, done, live, elsewhere) = Home(tmp_path), (uuid4() for _ in range(4))
    server: Any = Server({killed: Running(), done: Completed(), live: Running()})
    first, second = command(tmp_path, killed, done), command(tmp_path, live)
    try:
        assert mark_crashed(home, server) == []
        assert {run.pid for run in list_live(home, API)} == {first.pid, second.pid}
        first.kill()
        first.communicate()
        assert mark_crashed(home, server) == [str(killed)]
        assert mark_crashed(home, server) == []
        assert server.states[killed].name == "Crashed"
        assert f"The process of `hone run mine` ({first.pid} on " in server.states[killed].message
        assert (server.states[done].name, server.states[live].name) == ("Completed", "Running")
        assert [run.pid for run in list_live(home, API)] == [second.pid]
    finally:
        second.communicate()
    assert not list((tmp_path / "runs").iterdir())
    third = command(tmp_path, elsewhere)
    third.kill()
    third.communicate()
    assert mark_crashed(home, server) == []
    assert len(list((tmp_path / "runs").iterdir())) == 1  # a run of another server is not lost


def test_the_processes_of_another_machine_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, flow_run = Home(tmp_path), uuid4()
    server: Any = Server({flow_run: Running()})
    process = command(tmp_path, flow_run)
    process.kill()
    process.communicate()
    (record,) = (tmp_path / "runs").iterdir()
    first, *rest = record.read_text().splitlines()
    record.write_text("\n".join([json.dumps(json.loads(first) | {"host": "elsewhere"}), *rest]))
    assert mark_crashed(home, server) == []
    assert server.states[flow_run].name == "Running"


@pytest.mark.parametrize("line", ["no id", '{"a": 1}', "\ufffd"])
def test_a_damaged_record_is_left_alone(tmp_path: Path, line: str) -> None:
    process = command(tmp_path, uuid4())
    process.kill()
    process.communicate()
    (record,) = (tmp_path / "runs").iterdir()
    with record.open("a") as file:
        file.write(line)
    assert mark_crashed(Home(tmp_path), Server({})) == []  # type: ignore[arg-type]


def test_a_record_is_gone_when_its_command_has_ended(tmp_path: Path) -> None:
    with record_run(Home(tmp_path), "hone run mine", API):
        assert len(list((tmp_path / "runs").iterdir())) == 1
    assert not list((tmp_path / "runs").iterdir())
