"""Servers that Hone starts for runs: on a free loopback port, shared by concurrent runs, ended after the last one.

Servers that run until `hone down` are in hone_app.service.up; both use one Prefect server on the data folder's
database.

A guard process (`python -m hone_app.service.servers`) owns the server. Each process that uses the server holds a shared
lock on a file; the guard waits for the exclusive lock, which the kernel grants when the last user has ended, even by a
kill.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import urlsplit

from hone.environment import DEFAULTS, Home, load_retention
from hone.errors import ServiceError
from hone_app.records import parse_json

START_SECONDS = 120
STOP_SECONDS = 15
PROBE_BYTES = 4096  # a block of a disk
TAIL_COLUMNS = 300  # of a line of a log in an error: a line may have 100 kB

_held: list[IO[str]] = []


@dataclass(frozen=True)
class Server:
    """How to start a server and check its health. `{port}` is replaced by its port; `hidden` are secrets."""

    name: str
    command: Sequence[str]
    health: str
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """The file with the server's output."""
        return self.home / f"{self.name}.log"

    @property
    def tail(self) -> str:
        """The last lines of the log, none longer than TAIL_COLUMNS, with `hidden` texts masked."""
        lines = self.log.read_text("utf8", errors="replace").splitlines()[-8:] if self.log.is_file() else []
        masked = (reduce(lambda text, secret: text.replace(secret, "***"), self.hidden, line) for line in lines)
        return "\n  ".join(line if len(line) <= TAIL_COLUMNS else f"{line[:TAIL_COLUMNS]} ..." for line in masked)


def prefect_server(home: Home, host: str = "127.0.0.1", shown: str = "127.0.0.1") -> Server:
    """A Prefect server with its database in the data folder; `shown` is the host in the URL for browsers."""
    command = (
        *(sys.executable, "-P", "-m", "hone_app.service.prefect_server"),
        *("--host", host, "--port", "{port}"),
    )
    environment = {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_URL": f"http://{shown}:{{port}}/api",
        # Relative: pages call the API by the name that they were opened with, so that it is of their own origin.
        "PREFECT_SERVER_UI_API_URL": os.environ.get("PREFECT_SERVER_UI_API_URL") or "/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        # In memory, the default, leases are lost in a restart, and their slots stay taken.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "5",
    }
    if os.environ.get("HONE_KEEP_DAYS"):  # otherwise Prefect keeps all runs
        environment |= {
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(load_retention().days * 86_400),
        }
    return Server("prefect", command, "/api/health", home.servers, environment)


def find_configured_prefect() -> str:
    """The API URL of the Prefect server that the environment or Prefect's active profile names; '' for none."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    profiles = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"
    if not profiles.is_file():
        return ""
    content = tomllib.loads(profiles.read_text("utf8"))
    active_profile = content.get("profiles", {}).get(content.get("active", ""), {})
    return str(active_profile.get("PREFECT_API_URL", ""))


def use(server: Server) -> str:
    """Start the server if it does not run; returns its URL, `http://127.0.0.1:PORT`. Raises as `starting` does."""
    with starting(server) as url:
        return url


@contextmanager
def starting(server: Server) -> Iterator[str]:
    """Yield the server's URL at once, so that the block runs during the start; after the block the server answers.

    The server runs until the last process that uses it has ended, so that a client's last messages arrive. Raises
    ServiceError, with the end of the server's log, if it does not start.
    """
    server.home.mkdir(parents=True, exist_ok=True)
    users = (server.home / f"{server.name}.users").open("w")
    fcntl.flock(users, fcntl.LOCK_SH)
    _held.append(users)
    with (server.home / f"{server.name}.starting").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        url = _find_running(server)
        if url:
            yield url
        else:
            url, guard = _start_guard(server)
            yield url
            wait_until_healthy(server, url, guard)


def is_healthy(url: str, path: str) -> bool:
    """Whether the server at `url` answers `path` with success within two seconds."""
    try:
        with urllib.request.urlopen(url + path, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def find_free_port(host: str, port: int) -> int:
    """`port` if it is free, any free port if it is 0; 0 if another program has the port."""
    with socket.socket() as probe:
        # As servers do: a port that was in use a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class _Started:
    """What a guard writes about its server."""

    url: str


def _find_running(server: Server) -> str:
    """The URL of the running server; '' if it does not run."""
    record = server.home / f"{server.name}.json"
    if not record.is_file():
        return ""
    try:
        url = parse_json(record.read_bytes(), _Started).url
    except ValueError:  # damaged; starting the server writes it anew
        return ""
    return url if re.fullmatch(r"http://127\.0\.0\.1:\d{1,5}", url) and is_healthy(url, server.health) else ""


def _start_guard(server: Server) -> tuple[str, subprocess.Popen[bytes]]:
    """Start the guard, which starts the server; returns the server's future URL, and the guard."""
    port = find_free_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    command = [word.replace("{port}", str(port)) for word in server.command]
    environment = {name: value.replace("{port}", str(port)) for name, value in server.environment.items()}
    with server.log.open("a") as out:
        guard = subprocess.Popen(
            [sys.executable, "-P", "-m", "hone_app.service.servers", str(server.home), server.name, url, *command],
            env=os.environ | DEFAULTS | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return url, guard


def wait_until_healthy(server: Server, url: str, process: subprocess.Popen[bytes] | None) -> None:
    """Return when the server answers; raise ServiceError if its process ends or it takes over two minutes.

    With a `process`, it or a child of it must listen on the port, which another program may have taken. Raises OSError
    instead if the disk is full.
    """
    deadline = time.monotonic() + START_SECONDS
    while not (is_healthy(url, server.health) and (process is None or _listens(process.pid, urlsplit(url).port))):
        if (process and process.poll() is not None) or time.monotonic() > deadline:
            if process:
                process.terminate()
            _check_disk(server.home)
            raise ServiceError(f"the {server.name} server did not start:\n  {server.tail}", where=str(server.log))
        time.sleep(0.1)


def _check_disk(folder: Path) -> None:
    """Raise OSError if nothing can be written to the folder: a server whose disk is full cannot log even that."""
    with TemporaryFile(dir=folder) as probe:
        probe.write(bytes(PROBE_BYTES))
        probe.flush()


def _listens(pid: int, port: int | None) -> bool:
    """Whether the process or a child of it listens on `port`."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for member in family
            for connection in member.net_connections("tcp")
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # macOS denies access to other users' processes
        return False


def guard(home: Path, name: str, url: str, command: Sequence[str]) -> int:
    """Run the server until its last user has ended; returns the server's exit status if that ends first."""
    record = home / f"{name}.json"
    server = subprocess.Popen(command)
    record.write_text(json.dumps({"url": url, "guard": os.getpid(), "server": server.pid}), "utf8")
    # The exclusive lock is held until the server has ended: a process that needs it meanwhile waits and starts another.
    with (home / f"{name}.users").open("w") as users:
        try:
            while server.poll() is None and not _has_no_users(users.fileno()):
                time.sleep(0.25)
            return server.returncode or 0
        finally:
            record.unlink(missing_ok=True)
            _end_group(server)


def _has_no_users(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the whole process group: MLflow's and Prefect's servers have child processes."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(guard(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
