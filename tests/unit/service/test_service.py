"""The service without its servers: what is refused, what is ended, who may read the passwords."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from cryptography.fernet import Fernet

from hone.environment import Home
from hone.errors import ConfigError, ServiceError
from hone_app.service import processes, servers
from hone_app.service import up as service
from hone_app.service.credentials import load_credentials
from hone_app.service.parts import (
    Settings,
    build_mlflow,
    build_prefect,
    build_webhook,
    build_worker,
    client_environment,
)
from hone_app.service.processes import Process
from hone_app.service.servers import Server
from hone_app.service.up import (
    Record,
    Request,
    check_stores,
    choose_ports,
    join_service,
    read_record,
    start_service,
    stop_service,
    write_record,
)
from hone_app.terminal_runs import record_run

# Starts a child that lives on when its parent is killed.
PARENT = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '1000']); print('started', flush=True); time.sleep(1000)"
)


def make_project(folder: Path) -> Path:
    """A folder with what makes a project."""
    (folder / "conf").mkdir(parents=True)
    (folder / "deployments").mkdir()
    (folder / "deployments/prefect.yaml").write_text("deployments: []\n")
    return folder


def undecided(commands: Sequence[str]) -> bool:
    raise AssertionError(f"nothing is to be decided on {commands}")


def begun(mark: str, log: Path) -> Process:
    """A process with a child, both carrying the mark."""
    process, _ = processes.start_process([sys.executable, "-c", PARENT], os.environ, log, log.parent, mark)
    while not log.read_text():
        pass
    return process


def test_all_that_carries_the_mark_is_ended_and_nothing_else(tmp_path: Path) -> None:
    ours, theirs = begun("ours/worker", tmp_path / "a"), begun("theirs/worker", tmp_path / "b")
    try:
        assert [len(processes.list_marked(mark)) for mark in ("ours/worker", "theirs/worker")] == [2, 2]
        killed = psutil.Process(ours.pid)
        killed.kill()  # its child is an orphan, and still ours
        killed.wait(30)  # a killed process is listed until it has ended
        assert processes.end_marked("ours/worker", ours) == 1
        assert [len(processes.list_marked(mark)) for mark in ("ours/worker", "theirs/worker")] == [0, 2]
    finally:
        assert processes.end_marked("theirs/worker", theirs) == 2
        assert processes.list_marked("theirs/worker") == []


def test_the_worker_is_ended_after_its_runs(tmp_path: Path) -> None:
    script = """
import signal, subprocess, sys, time
RUN = '''
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('run ended', flush=True)))
print('started', flush=True)
time.sleep(1000)
'''
run = subprocess.Popen([sys.executable, '-c', RUN])
signal.signal(signal.SIGTERM, lambda *_: (run.kill(), sys.exit()))
time.sleep(1000)
"""
    log = tmp_path / "log"
    worker, _ = processes.start_process([sys.executable, "-c", script], os.environ, log, tmp_path, "w")
    while "started" not in log.read_text():
        pass
    assert processes.end_marked("w", worker) == 2
    assert log.read_text().splitlines() == ["started", "run ended"]


def test_an_id_that_came_to_another_program_is_not_ended(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        reused = Process(innocent.pid, psutil.Process(innocent.pid).create_time() - 60)
        assert not reused.alive
        home = Home(tmp_path)
        write_record(home, Record("of-old", ports={"prefect": 1, "mlflow": 2}, parts={"worker": reused}))
        said: list[str] = []
        stop_service(home, said.append, undecided)
        assert said == ["nothing runs"]
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.parametrize("interrupt", [True, False])
def test_a_command_that_uses_the_servers_is_waited_for_or_interrupted_as_decided(
    tmp_path: Path, interrupt: bool
) -> None:
    home = Home(tmp_path)
    server = begun("x/prefect", tmp_path / "log")
    write_record(home, Record("x", ports={"prefect": 4200, "mlflow": 5000}, parts={"prefect": server}))
    said: list[str] = []
    asked: list[str] = []
    used, ended = threading.Event(), threading.Event()

    def use() -> None:
        other = record_run(home, "hone run other", "http://127.0.0.1:1/api")
        with other, record_run(home, "hone run mine", "http://127.0.0.1:4200/api"):
            used.set()
            ended.wait(60)

    def decide(commands: Sequence[str]) -> bool:
        asked.extend(commands)
        return interrupt

    def report(line: str) -> None:
        if line.startswith("waiting"):
            assert server.alive
            ended.set()
        said.append(line)

    user = threading.Thread(target=use)
    user.start()
    assert used.wait(60)
    try:
        stop_service(home, report, decide)
        assert asked == [f"`hone run mine` (process {os.getpid()})"]
        assert said == [*([] if interrupt else [f"waiting for {asked[0]}"]), "ended: prefect"]
        assert user.is_alive() or not interrupt
        assert not server.alive
    finally:
        ended.set()
        user.join(60)
        processes.end_marked("x/prefect")
    assert not list((tmp_path / "runs").iterdir())


def test_where_nothing_was_started_nothing_is_ended(tmp_path: Path) -> None:
    said: list[str] = []
    stop_service(Home(tmp_path), said.append, undecided)
    assert said == ["nothing runs"]
    assert not list(tmp_path.iterdir())


def test_a_run_with_a_server_of_its_own_is_not_given_a_second_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.servers.mkdir()
    request = Request(project=make_project(tmp_path / "project"))
    with (home.servers / "prefect.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with pytest.raises(ServiceError, match="has its own Prefect server"):
            start_service(home, request, print)
    assert not (home.root / "logs").exists()


def test_a_port_that_another_program_has_is_left_to_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert servers.find_free_port("127.0.0.1", port) == 0
    assert servers.find_free_port("127.0.0.1", port) == port


def test_ports_are_as_they_were_unless_another_program_has_one() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken, free = other.getsockname()[1], servers.find_free_port("127.0.0.1", 0)
    before = Record("x", ports={"prefect": taken, "mlflow": free})
    assert choose_ports(before, ("prefect", "mlflow")) == before.ports
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", taken))
        other.listen()
        now = choose_ports(before, ("prefect", "mlflow"))
    assert now["mlflow"] == free
    assert now["prefect"] not in (taken, free)


def test_who_loses_the_race_for_a_port_takes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, chosen, others = Home(tmp_path), [], []

    def choose_and_lose(record: Record, dead: Sequence[str]) -> dict[str, int]:
        """The ports, the first of which another program takes before the server has."""
        chosen.append(choose_ports(record, dead))
        if len(chosen) == 1:
            others.append(socket.create_server(("127.0.0.1", chosen[0]["prefect"])))
        return chosen[-1]

    def files(name: str) -> Server:
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}"]
        return Server(name, command, "/", home.logs)

    monkeypatch.setattr(service, "choose_ports", choose_and_lose)
    monkeypatch.setattr(service, "build_prefect", lambda *_: files("prefect"))
    monkeypatch.setattr(service, "build_mlflow", lambda *_: files("mlflow"))
    # No database is made ready for an MLflow that keeps none here.
    begun = Record("race", settings=Settings(mlflow_database="postgresql://none"))
    home.servers.mkdir()
    started: list[str] = []
    try:
        record = service._start_servers(home, begun, tmp_path, started)
        assert [record.alive(part) for part in ("prefect", "mlflow")] == [True, True]
        assert record.ports == chosen[1]
        assert chosen[1]["prefect"] not in (chosen[0]["prefect"], 0)
        assert chosen[1]["mlflow"] == chosen[0]["mlflow"]
    finally:
        for part in ("prefect", "mlflow"):
            processes.end_marked(begun.mark(part))
        others[0].close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(host="0.0.0.0"), "without a password"),
        (Settings(host="192.168.1.7"), "without a password"),
        (Settings(host="gpu.example"), "without a password"),
        (Settings(prefect_database="mysql://hone@db/prefect"), "not a PostgreSQL URL"),
        (Settings(mlflow_database="sqlite:///mlflow.db"), "not a PostgreSQL URL"),
    ],
)
def test_what_is_open_to_others_or_cannot_be_is_refused(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.check()


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", "127.0.0.1:5000"),
        ("::1", "[::1]:5000"),
        ("::1", "[::1]"),
        ("0.0.0.0", f"{socket.gethostname()}:5"),
    ],
)
def test_mlflow_answers_to_the_names_of_this_machine_and_to_no_rebound_one(
    host: str, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged by MLflow's own check, whose default lets `10.example.org` through."""
    from mlflow.server.security_utils import is_allowed_host_header

    monkeypatch.delenv("MLFLOW_SERVER_ALLOWED_HOSTS", raising=False)
    hosts = build_mlflow(Home(tmp_path), Settings(host=host)).environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for name in (own, "localhost:5000", "localhost"):
        assert is_allowed_host_header(hosts, name), name
    for name in (
        "10.example.org",
        "192.168.example.org:5000",
        "localhost.example.org",
        "127.0.0.1.example.org",
        ":5000",
    ):
        assert not is_allowed_host_header(hosts, name), name


def test_loopback_and_passwords_are_let_through() -> None:
    for settings in (Settings(), Settings(host="localhost"), Settings(host="::1"), Settings(host="0.0.0.0", auth=True)):
        settings.check()


def test_a_record_of_an_older_hone_is_read_and_written_with_what_it_did_not_know(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.service.mkdir()
    settings = {"host": "127.0.0.1", "auth": True, "prefect_database": "", "mlflow_database": ""}
    before = {"name": "of-old", "settings": settings, "ports": {"prefect": 4200, "mlflow": 5000}}
    parts = {"worker": {"pid": 1, "began": 2.5}}
    (home.service / "record.json").write_text(json.dumps(before | {"parts": parts}))
    record = read_record(home)
    assert record == Record("of-old", Settings(auth=True), before["ports"], {"worker": Process(1, 2.5)})
    now = replace(record, project="/home/kim/tickets", notifications="slack://...")
    write_record(home, now)
    assert read_record(home) == now


def test_another_project_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, theirs = Home(tmp_path / "hone"), make_project(tmp_path / "theirs")
    write_record(home, Record("x", project=str(make_project(tmp_path / "ours"))))
    monkeypatch.chdir(theirs)
    said: list[str] = []
    with pytest.raises(ConfigError) as refused:
        start_service(home, Request(), said.append)
    assert (refused.value.where, str(tmp_path / "ours") in refused.value.what) == (str(theirs), True)
    assert "--project" in refused.value.fix
    assert said == []
    assert not (home.root / "logs").exists()


def test_passwords_are_random_kept_and_for_this_user_alone(tmp_path: Path) -> None:
    one, other = load_credentials(tmp_path / "a"), load_credentials(tmp_path / "b")
    assert len({one.prefect, one.mlflow, one.mlflow_forms, other.prefect}) == 4
    assert load_credentials(tmp_path / "a") == one
    file = tmp_path / "a" / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # Those of an older Hone stay, and what it did not know is added.
    file.write_text(json.dumps({name: getattr(one, name) for name in ("prefect", "mlflow", "mlflow_forms")}))
    now = load_credentials(tmp_path / "a")
    assert (now.prefect, now.mlflow, now.mlflow_forms) == (one.prefect, one.mlflow, one.mlflow_forms)
    assert now.mlflow_webhook not in ("", one.mlflow_webhook)
    assert load_credentials(tmp_path / "a") == now
    Fernet(now.mlflow_webhook_encryption)  # raises for what is no key


def test_no_secret_stands_on_a_command_line(tmp_path: Path) -> None:
    settings = Settings(
        auth=True,
        prefect_database="postgresql://hone:geheim@db/prefect",
        mlflow_database="postgresql://hone:geheim@db/m",
    )
    known = load_credentials(tmp_path / "service")
    home = Home(tmp_path)
    client = client_environment(settings, home, lambda part: part)
    databases = [build_prefect(home, settings), build_mlflow(home, settings)]
    for server in (*databases, build_worker(home, client), build_webhook(home, client)):
        line = " ".join(server.command)
        assert not [secret for secret in ("geheim", *asdict(known).values()) if secret in line]
    assert [server.hidden for server in databases] == [("geheim",) * 4] * 2
    for file in (tmp_path / "service").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_find_the_service_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        os.environ.pop(name, None)
    home, me = Home(tmp_path), psutil.Process()
    here = Process(me.pid, me.create_time())
    gone = Process(me.pid, me.create_time() - 1)
    record = Record("x", Settings(auth=True), {"prefect": 4200, "mlflow": 5000}, {"prefect": here, "mlflow": gone})
    join_service(home)
    write_record(home, record)
    join_service(home)
    assert "PREFECT_API_URL" not in os.environ
    write_record(home, Record(record.name, record.settings, record.ports, {"prefect": here, "mlflow": here}))
    os.environ["MLFLOW_TRACKING_URI"] = "http://mlflow.example"
    join_service(home)
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert os.environ["PREFECT_API_AUTH_STRING"] == load_credentials(home.service).auth_string
    # Another server is not shown the passwords of this one.
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow.example"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_records_in_postgresql_are_not_parted_from_by_a_run_without_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    check_stores(Home(tmp_path))
    monkeypatch.setenv("HONE_MLFLOW_DATABASE", "postgresql://hone:geheim@db/mlflow")
    with pytest.raises(ServiceError, match="hone up") as fault:
        check_stores(Home(tmp_path))
    assert "geheim" not in str(fault.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    check_stores(Home(tmp_path))
