"""Servers of our own: shared, ended with their last user however it ended, and clear when they do not start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from hone.environment import Home
from hone.errors import ServiceError
from hone_app.service import servers
from hone_app.service.servers import Server, find_configured_prefect, is_healthy, prefect_server

# A user of a server: says its URL, then lives until its standard input closes.
USER = """
import sys
from pathlib import Path
from hone_app.service.servers import Server, use
command = (sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1")
print(use(Server("files", command, "/", Path(sys.argv[1]))), flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the server in `home`."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-c", USER, str(home)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.communicate()


def guard_of(home: Path) -> int:
    return int(json.loads((home / "files.json").read_text())["guard"])


def wait_for_end(pid: int) -> None:
    """Return when the process, no child of ours, is gone; the test's own time limit is the bound."""
    handle = os.pidfd_open(pid)
    try:
        import select

        assert select.select([handle], [], [], 30)[0]
    finally:
        os.close(handle)


def test_two_users_share_a_server_that_ends_with_the_last(tmp_path: Path) -> None:
    one, two = User(tmp_path), User(tmp_path)
    assert one.url == two.url
    guard = guard_of(tmp_path)
    one.end()
    assert is_healthy(two.url, "/")
    two.end()
    wait_for_end(guard)
    assert not is_healthy(two.url, "/")
    assert not (tmp_path / "files.json").exists()


def test_a_killed_user_leaves_no_server_behind(tmp_path: Path) -> None:
    user = User(tmp_path)
    guard = guard_of(tmp_path)
    user.end(signal.SIGKILL)
    wait_for_end(guard)
    assert not is_healthy(user.url, "/")


def test_after_the_last_user_another_server_starts(tmp_path: Path) -> None:
    first = User(tmp_path)
    first.end()
    second = User(tmp_path)
    assert is_healthy(second.url, "/")
    guard = guard_of(tmp_path)
    second.end()
    wait_for_end(guard)


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no such database')")
    with pytest.raises(ServiceError, match="no such database"):
        servers.use(Server("broken", command, "/", tmp_path))


def test_an_error_shows_the_end_of_a_log_within_bounds_and_without_secrets(tmp_path: Path) -> None:
    server = Server("broken", (), "/", tmp_path, hidden=("geheim",))
    server.log.write_text("\n".join(["first", *["x" * 100_000 for _ in range(7)], "the password is geheim"]))
    *long, last = server.tail.splitlines()
    assert last == "  the password is ***"
    assert len(long) == 7
    assert {len(line) for line in long[1:]} == {2 + servers.TAIL_COLUMNS + 4}


def test_the_prefect_server_of_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert find_configured_prefect() == ""
    (tmp_path / "profiles.toml").write_text(
        'active = "prod"\n[profiles.prod]\nPREFECT_API_URL = "http://prefect.example/api"\n[profiles.ephemeral]\n'
    )
    assert find_configured_prefect() == "http://prefect.example/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://other.example/api")
    assert find_configured_prefect() == "http://other.example/api"


def test_prefect_deletes_old_runs_only_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    def read_settings() -> ServerServicesDBVacuumSettings:
        with monkeypatch.context() as patch:
            for name, value in prefect_server(Home(tmp_path)).environment.items():
                patch.setenv(name, value)
            return ServerServicesDBVacuumSettings()

    monkeypatch.delenv("HONE_KEEP_DAYS", raising=False)
    assert "flow_runs" not in read_settings().enabled_vacuum_types
    monkeypatch.setenv("HONE_KEEP_DAYS", "7")
    assert "flow_runs" in read_settings().enabled_vacuum_types
    assert read_settings().retention_period == timedelta(days=7)
