"""The service: a Prefect server, an MLflow server, a worker and a webhook, which run until `hone down`.

HONE_HOME/service/record.json records what runs, so that a second `hone up` starts only missing parts, `hone run` uses
these servers, and `hone down` ends these processes and no others.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hone.config.folder import list_names
from hone.environment import DEFAULTS, Home
from hone.errors import ConfigError, ServiceError
from hone_app.deploy.names import POOL
from hone_app.records import read_json
from hone_app.service import processes, servers
from hone_app.service.credentials import load_credentials, write_private
from hone_app.service.parts import (
    SERVERS,
    Settings,
    build_mlflow,
    build_prefect,
    build_webhook,
    build_worker,
    client_environment,
    webhook_ready_file,
)
from hone_app.service.processes import Process
from hone_app.service.project import describe_names, select_project
from hone_app.service.servers import Server
from hone_app.terminal_runs import list_live, wait_for_end

WAIT_SECONDS = 180
# Another program may take a free port between its choice and the server's start.
PORT_ATTEMPTS = 3
# In the order in which they are ended: runs report their end to the servers, so the servers are last.
PARTS = ("worker", "webhook", "mlflow", "prefect")
# Prefixes of variables that point to other servers; our processes must not inherit them.
FOREIGN = ("PREFECT_API_", "PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_SERVER_API_", "MLFLOW_TRACKING_", "MLFLOW_AUTH_")

# Width of the first column of what is reported.
COLUMN = 16

Report = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """What `hone up` started, and with which settings. `name` marks its processes; ports are kept for a restart.

    `project` and `notifications` are those of the last `hone up` that succeeded: the folder, and the recipient without
    its secret ('' for none).
    """

    name: str
    settings: Settings = field(default_factory=Settings)
    ports: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Process] = field(default_factory=dict)
    project: str = ""
    notifications: str = ""

    def alive(self, part: str) -> bool:
        """Whether this part is running."""
        return part in self.parts and self.parts[part].alive

    def mark(self, part: str) -> str:
        """The mark of this part's processes."""
        return f"{self.name}/{part}"

    def url(self, part: str) -> str:
        """The server's URL for processes on this machine."""
        return f"http://{self.settings.local_host}:{self.ports[part]}"

    def public_url(self, part: str) -> str:
        """The server's URL for people's browsers."""
        return f"http://{self.settings.public_host}:{self.ports[part]}"


@dataclass(frozen=True)
class Request:
    """What a `hone up` asks for. What it does not mention stays as it was.

    `settings` are those to change; `project` is a folder to move to; `notifications` false switches them off.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    project: Path | None = None
    slots: int | None = None
    notifications: bool = True


def read_record(home: Home) -> Record:
    """The record of this data folder; a new one if nothing was ever started."""
    path = home.service / "record.json"
    if not path.is_file():
        return Record(os.urandom(8).hex())
    fix = "End the service's processes, whose logs are in HONE_HOME/logs, delete this file, and run `hone up` again."
    return read_json(path, Record, fix)


def join_service(home: Home) -> None:
    """If the service runs, set its URLs and credentials in this process's environment, for it and its children.

    URLs that are already set are kept. Waits while `hone up` or `hone down` is running.
    """
    if not (home.service / "record.json").is_file():
        return
    with _exclusive(home):
        record = read_record(home)
    environment = client_environment(record.settings, home, record.url) if all(map(record.alive, SERVERS)) else {}
    for url in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        if url in environment and not os.environ.get(url):
            library = url.split("_")[0]
            os.environ.update({name: value for name, value in environment.items() if name.startswith(library)})


def check_stores(home: Home) -> None:
    """Raise ServiceError if this data folder's records are in PostgreSQL and no server for them is running."""
    settings = read_record(home).settings
    for url, database in (("PREFECT_API_URL", "prefect_database"), ("MLFLOW_TRACKING_URI", "mlflow_database")):
        database_url = os.environ.get(f"HONE_{database.upper()}") or getattr(settings, database)
        if database_url and not os.environ.get(url):
            raise ServiceError(
                f"the service stores its records in PostgreSQL ({database}) and is not running",
                where=str(home.root),
                fix=f"Run `hone up`, or set {url} to a server.",
            )


def start_service(home: Home, request: Request, report: Report) -> None:
    """Start the parts that are not running, apply the project's deployments, and report what runs where.

    Raises ConfigError if running parts have other settings, if the working directory is not in the service's project
    (`select_project`) or if Prefect refuses a deployment; ServiceError if a part does not start. The parts that this
    call started are then ended.
    """
    started: list[str] = []
    with _exclusive(home), ExitStack() as undo:
        record = read_record(home)
        project = select_project(record.project, request.project, Path.cwd())
        settings = replace(record.settings, **request.settings)
        settings.check()
        if settings != record.settings and any(map(record.alive, PARTS)):
            fix = "Run `hone down`, then `hone up`."
            raise ConfigError("is running with other settings", where="the service", fix=fix)
        record = replace(record, settings=settings)
        _report(report, "project", str(project))
        _report(report, "configurations", list_names(project))
        undo.callback(lambda: [_end(record, part) for part in started])
        with _only_server(home, record):
            record = _start_servers(home, record, project, started)
        _report(report, "Prefect", f"{record.public_url('prefect')}  {_status('prefect', started)}")
        _report(report, "MLflow", f"{record.public_url('mlflow')}  {_status('mlflow', started)}")
        deployments, recipient = _apply(home, record, project, request)
        lost = record.notifications if request.notifications and not recipient else ""
        record = replace(record, project=str(project), notifications=recipient)
        write_record(home, record)
        record = _start_clients(home, record, project, started)
        undo.pop_all()
        _report(report, "worker", f"work pool {POOL}  {_status('worker', started)}")
        _report(report, "webhook", f"from MLflow to watch-registry  {_status('webhook', started)}")
        _report(report, "deployments", deployments)
        _report(report, "notifications", recipient or f"none: set HONE_NOTIFY_URL{f' (was {lost})' if lost else ''}")
        if settings.auth:
            _report(report, "user", f"admin, passwords in {home.service / 'secrets.json'}")


def _report(report: Report, name: str, content: str | Sequence[str]) -> None:
    """Report a line that begins with `name`; names in `content` that do not fit the terminal are left out."""
    width = shutil.get_terminal_size().columns - COLUMN
    report(f"{name:{COLUMN}}{content if isinstance(content, str) else describe_names(content, width)}")


def stop_service(home: Home, report: Report, may_interrupt: Callable[[Sequence[str]], bool]) -> None:
    """End everything that `hone up` started (runs, trainings, servers), and report what was ended.

    If `hone` commands use the servers, `may_interrupt(commands)` decides: true to end the servers under them, false to
    wait for them first.
    """
    if not (home.service / "record.json").is_file():
        report("nothing runs")
        return
    record = read_record(home)
    api = f"{record.url('prefect')}/api" if record.alive("prefect") else ""
    commands = [f"`{run.command}` (process {run.pid})" for run in list_live(home, api)]
    if commands and not may_interrupt(commands):
        report(f"waiting for {', '.join(commands)}")
        wait_for_end(home, api)
    with _exclusive(home):
        record = read_record(home)
        ended = [part for part in PARTS if _end(record, part)]
        _write_server_url(home, "")
        write_record(home, replace(record, parts={}))
    report(f"ended: {', '.join(ended)}" if ended else "nothing runs")


def _end(record: Record, part: str) -> int:
    return processes.end_marked(record.mark(part), record.parts.get(part) if part == "worker" else None)


def _status(part: str, started: list[str]) -> str:
    return "started" if part in started else "runs"


@contextmanager
def _exclusive(home: Home) -> Iterator[None]:
    """Within the block, no other process starts or ends the service of this data folder."""
    home.service.mkdir(parents=True, exist_ok=True)
    with (home.service / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _only_server(home: Home, record: Record) -> Iterator[None]:
    """Within the block, no run starts a Prefect server on the data folder. Raises ServiceError if one has."""
    home.servers.mkdir(parents=True, exist_ok=True)
    with (home.servers / "prefect.users").open("w") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not record.alive("prefect"):
                raise ServiceError(
                    "a `hone run` has its own Prefect server on this data folder",
                    where=str(home.root),
                    fix="Wait for it or interrupt it, and run `hone up`; the same `hone run` then continues.",
                ) from None
        yield


def _start_servers(home: Home, record: Record, project: Path, started: list[str]) -> Record:
    dead = [part for part in SERVERS if not record.alive(part)]
    for _ in range(PORT_ATTEMPTS):
        ports = choose_ports(record, dead)
        if ports != record.ports:
            for client in filter(record.alive, ("worker", "webhook")):  # they have the old URLs
                _end(record, client)
        record = replace(record, ports=ports)
        try:
            return _serve(home, record, dead, project, started)
        except ServiceError as fault:
            last_fault = fault
        for part in dead:
            _end(record, part)
        if all(servers.find_free_port(record.settings.host, ports[part]) for part in dead):
            break  # the ports are free, so the failure has another cause
    raise last_fault


def _serve(home: Home, record: Record, dead: Sequence[str], project: Path, started: list[str]) -> Record:
    """Start the `dead` servers on their ports, and wait until all answer."""
    from hone.tracking.client import create_sqlite_store

    waiting = []
    for part, server in (
        ("prefect", build_prefect(home, record.settings)),
        ("mlflow", build_mlflow(home, record.settings)),
    ):
        if part not in dead:
            servers.wait_until_healthy(server, record.url(part), None)
            continue
        if part == "mlflow" and not record.settings.mlflow_database:
            create_sqlite_store(f"sqlite:///{home.root}/mlflow/mlflow.db")
        record, child = _start(home, record, server, project, started)
        waiting.append((server, child))
    for server, child in waiting:
        servers.wait_until_healthy(server, record.url(server.name), child)
    _write_server_url(home, record.url("prefect"))
    return record


def _start(
    home: Home, record: Record, server: Server, project: Path, started: list[str]
) -> tuple[Record, subprocess.Popen[bytes]]:
    """Start one part and record it."""
    if server.name != "worker":
        _end(record, server.name)  # its leftover children; a worker's runs continue
    port = str(record.ports.get(server.name, ""))
    server_environment = {name: value.replace("{port}", port) for name, value in server.environment.items()}
    command = [word.replace("{port}", port) for word in server.command]
    started.append(server.name)
    mark = record.mark(server.name)
    process, child = processes.start_process(command, _environment(home, server_environment), server.log, project, mark)
    record = replace(record, parts={**record.parts, server.name: process})
    write_record(home, record)
    return record, child


def _environment(home: Home, additions: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without FOREIGN variables, with `additions` and this Python's programs on PATH."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH"))))
    return {**DEFAULTS, **inherited, "PATH": path, "HONE_HOME": str(home.root), **additions}


def _start_clients(home: Home, record: Record, project: Path, started: list[str]) -> Record:
    """Start the worker and the webhook if they are not running, and wait for a new sign of life from each."""
    client = client_environment(record.settings, home, record.url)
    waiting = []
    for server, read_sign in (
        (build_worker(home, client), partial(_heartbeat, home, record)),
        (build_webhook(home, client), partial(_subscribed, home)),
    ):
        if not record.alive(server.name):
            previous_sign = read_sign()
            record, child = _start(home, record, server, project, started)
            waiting.append((server, child, read_sign, previous_sign))
    deadline = time.monotonic() + WAIT_SECONDS
    for server, child, read_sign, previous_sign in waiting:
        while read_sign() == previous_sign:
            if child.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"the {server.name} did not start:\n  {server.tail}", where=str(server.log))
            time.sleep(0.2)
    return record


def _subscribed(home: Home) -> str:
    """When the webhook's server last subscribed to MLflow; '' for never."""
    path = webhook_ready_file(home)
    return str(path.stat().st_mtime_ns) if path.is_file() else ""


def _heartbeat(home: Home, record: Record) -> str:
    """When the worker last sent a heartbeat; '' for never."""
    request = urllib.request.Request(
        f"{record.url('prefect')}/api/work_pools/{POOL}/workers/filter", b"{}", {"content-type": "application/json"}
    )
    if record.settings.auth:
        auth = base64.b64encode(load_credentials(home.service).auth_string.encode()).decode()
        request.add_header("Authorization", f"Basic {auth}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return max((str(worker["last_heartbeat_time"]) for worker in json.load(answer)), default="")
    except (urllib.error.URLError, TimeoutError):
        return ""


def _apply(home: Home, record: Record, project: Path, request: Request) -> tuple[list[str], str]:
    """Apply work pool, deployments, GPU slots and automations.

    Returns the deployments' names, and the recipient of notifications without its secret ('' for none).
    """
    server = Server("deployments", (), "", home.logs, hidden=record.settings.passwords())
    slots = ["--gpu-slots", str(request.slots)] if request.slots is not None else []
    options = [*slots, *([] if request.notifications else ["--no-notifications"])]
    environment = _environment(home, client_environment(record.settings, home, record.url))
    result = subprocess.run(
        [sys.executable, "-P", "-m", "hone_app.deploy.apply", *options],
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
    )
    server.log.parent.mkdir(parents=True, exist_ok=True)
    server.log.write_text(result.stdout + result.stderr, "utf8")
    if result.returncode == ConfigError.exit_code:
        raise ConfigError(re.split("^hone: ", result.stderr, flags=re.MULTILINE)[-1].rstrip())
    if result.returncode:
        raise ServiceError(f"the deployments were not applied:\n  {server.tail}", where=str(server.log))
    applied = json.loads(result.stdout.splitlines()[-1])
    return applied["deployments"], applied["notifications"]


def _write_server_url(home: Home, url: str) -> None:
    """Publish the Prefect server's URL to runs that would start a server of their own; '' withdraws it."""
    path = home.servers / "prefect.json"
    if url:
        path.write_text(json.dumps({"url": url}), "utf8")
    else:
        path.unlink(missing_ok=True)


def write_record(home: Home, record: Record) -> None:
    """Write the record, readable by this user only: a database's URL may contain a password."""
    write_private(home.service / "record.json", json.dumps(asdict(record), indent=2))


def choose_ports(record: Record, dead: Iterable[str]) -> dict[str, int]:
    """The ports of all servers. The `dead` ones get their previous port, else the default, else any free port."""
    ports = dict(record.ports)
    for part in dead:
        taken = {port for other, port in ports.items() if other != part}
        preferred = [port for port in (ports.get(part), SERVERS[part]) if port and port not in taken]
        free = (servers.find_free_port(record.settings.host, port) for port in (*preferred, 0))
        ports[part] = next(filter(None, free))
    return ports
