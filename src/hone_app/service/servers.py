"""Servers that Hone starts for one run: on a free loopback port, shared by all who need them, ended with the last.

Servers that stay until `hone down` are in hone_app.service.up; both use one Prefect server on the data folder's
database.

A guard process (`python -m hone_app.service.servers`) owns the server. Whoever uses it holds a shared lock on a file;
the guard waits for the exclusive one, which the kernel grants when the last user has left, however it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
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
from typing import IO
from urllib.parse import urlsplit

from hone.environment import DEFAULTS, Home
from hone.errors import ServiceError

START_SECONDS = 120
STOP_SECONDS = 15

_held: list[IO[str]] = []


@dataclass(frozen=True)
class Server:
    """How a server is started and asked for its health. `{port}` stands for the port that it gets."""

    name: str
    command: Sequence[str]
    health: str
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.home / f"{self.name}.log"

    @property
    def tail(self) -> str:
        """The last lines of its log, without what is `hidden`."""
        lines = self.log.read_text("utf8", errors="replace").splitlines()[-8:] if self.log.is_file() else []
        return reduce(lambda text, secret: text.replace(secret, "***"), self.hidden, "\n  ".join(lines))


def prefect_server(home: Home, host: str = "127.0.0.1", shown: str = "127.0.0.1") -> Server:
    """A Prefect server whose database lies in the data folder; `shown` is the host in its own URL."""
    command = (
        *(sys.executable, "-P", "-m", "hone_app.service.prefect_server"),
        *("server", "start", "--host", host, "--port", "{port}"),
    )
    # The UI's pages ask the API at this URL.
    url = f"http://{shown}:{{port}}/api"
    environment = {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_URL": url,
        "PREFECT_LOGGING_LEVEL": "WARNING",
        # In memory, as they are by default, leases are lost in a restart, and the slots they stand for stay taken.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "5",
    }
    return Server("prefect", command, "/api/health", home.servers, environment)


def configured_prefect() -> str:
    """The API URL of the Prefect server that the environment or Prefect's active profile names; '' for none."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    profiles = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"
    if not profiles.is_file():
        return ""
    known = tomllib.loads(profiles.read_text("utf8"))
    return str(known.get("profiles", {}).get(known.get("active", ""), {}).get("PREFECT_API_URL", ""))


def use(server: Server) -> str:
    """The URL, `http://127.0.0.1:PORT`, of the server, started if it does not run; raises as `starting` does."""
    with starting(server) as url:
        return url


@contextmanager
def starting(server: Server) -> Iterator[str]:
    """Gives the server's URL at once, for what can be done meanwhile; as the block ends the server answers.

    It stays until the last process that uses it has ended, so that what a client sends in its last moment arrives.
    Raises ServiceError, with the end of the server's log, where it does not come up.
    """
    server.home.mkdir(parents=True, exist_ok=True)
    users = (server.home / f"{server.name}.users").open("w")
    fcntl.flock(users, fcntl.LOCK_SH)
    _held.append(users)
    with (server.home / f"{server.name}.starting").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        url = _known(server)
        if url:
            yield url
        else:
            url, guard = _start(server)
            yield url
            wait(server, url, guard)


def healthy(url: str, path: str) -> bool:
    """Whether the server at `url` answers `path` with success within two seconds."""
    try:
        with urllib.request.urlopen(url + path, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def bindable(host: str, port: int) -> int:
    """The port itself where it is free, for 0 one that is; 0 where another program has it."""
    with socket.socket() as probe:
        # As servers do it: a port that was used a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


def _known(server: Server) -> str:
    """The URL of the server that runs already, '' where none does."""
    record = server.home / f"{server.name}.json"
    if not record.is_file():
        return ""
    url = str(json.loads(record.read_text("utf8"))["url"])
    return url if healthy(url, server.health) else ""


def _start(server: Server) -> tuple[str, subprocess.Popen[bytes]]:
    """Start the guard, which starts the server; the URL where it will answer, and the guard."""
    port = bindable("127.0.0.1", 0)
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


def wait(server: Server, url: str, process: subprocess.Popen[bytes] | None) -> None:
    """Return when the server answers; raise ServiceError where its process ended or it takes two minutes.

    With a `process` it is that one, or a child of it, that has to answer: another program may have taken the port.
    """
    deadline = time.monotonic() + START_SECONDS
    while not (healthy(url, server.health) and (process is None or _serves(process.pid, urlsplit(url).port))):
        if (process and process.poll() is not None) or time.monotonic() > deadline:
            if process:
                process.terminate()
            raise ServiceError(f"the {server.name} server did not start:\n  {server.tail}", where=str(server.log))
        time.sleep(0.1)


def _serves(pid: int, port: int | None) -> bool:
    """Whether the process or a child of it listens on `port`."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for one in family
            for connection in one.net_connections("tcp")
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # macOS refuses what is not this user's
        return False


def guard(home: Path, name: str, url: str, command: Sequence[str]) -> int:
    """Run the server until its last user has left; its exit status where it ends by itself."""
    record = home / f"{name}.json"
    server = subprocess.Popen(command)
    record.write_text(json.dumps({"url": url, "guard": os.getpid(), "server": server.pid}), "utf8")
    # The exclusive lock is held until the server has ended: who comes meanwhile waits, and starts another.
    with (home / f"{name}.users").open("w") as users:
        try:
            while server.poll() is None and not _alone(users.fileno()):
                time.sleep(0.25)
            return server.returncode or 0
        finally:
            record.unlink(missing_ok=True)
            _end(server)


def _alone(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the whole group: MLflow's and Prefect's servers have children of their own."""
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
