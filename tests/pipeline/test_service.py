"""`hone up` and `hone down` on real servers: started once, found again, ended to the last process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from hone.config.file import parse_config
from hone.environment import Home
from hone.pipeline.run import run_ahead
from hone.tracking.reader import describe_fault
from hone_app.service.processes import list_marked
from hone_app.service.up import PARTS, read_record
from hone_app.terminal_runs import record_run
from tests.polling import until
from tests.postgresql import QUOTED, SECRET, Cluster
from tests.services import Service, ask, status

pytestmark = pytest.mark.slow

FINETUNE = {"flows": {"name": {"any_": ["finetune"]}}}


def processes(service: Service) -> dict[str, list[psutil.Process]]:
    """The processes of each part that run now."""
    record = read_record(Home(service.home))
    return {part: list_marked(record.mark(part)) for part in PARTS}


def move_by_hand(service: Service, model: str, passwords: dict[str, str]) -> None:
    """Make a version that Hone could have made the champion, as MLflow's UI does it."""
    mlflow = f"{service.mlflow_url}/api/2.0/mlflow"
    password = passwords.get("mlflow", "")
    ask(f"{mlflow}/registered-models/create", {"name": model}, password)
    tags = [{"key": "hone.files_sha256", "value": "0" * 64}]
    ask(f"{mlflow}/model-versions/create", {"name": model, "source": "s3://nowhere/model", "tags": tags}, password)
    ask(f"{mlflow}/registered-models/alias", {"name": model, "alias": "champion", "version": "1"}, password)


def test_what_runs_is_said_and_what_died_is_started_again(service: Service) -> None:
    assert service.said.count("started") == 4
    found = service.ask("/deployments/name/finetune/finetune")
    assert found["tags"] == ["hone", "training"]
    before = processes(service)
    os.kill(before["worker"][0].pid, signal.SIGKILL)
    again = dict(line.split(maxsplit=1) for line in service.up().splitlines())
    parts = ("Prefect", "MLflow", "worker", "webhook")
    assert [again[part].split()[-1] for part in parts] == ["runs", "runs", "started", "runs"]
    assert again["project"] == str(service.place)
    assert again["configurations"].startswith(f"{len(list(service.place.glob('conf/*.yaml')))}: banking77, causal-lm, ")
    assert again["notifications"] == "none: set HONE_NOTIFY_URL"
    after = processes(service)
    assert [after[part] == before[part] for part in PARTS] == [False, True, True, True]
    # Applied again, all is as it was.
    assert service.ask("/deployments/name/finetune/finetune")["id"] == found["id"]
    assert len(service.ask("/work_pools/filter", {})) == 1


def test_a_flow_run_of_a_killed_command_is_marked_as_crashed_by_the_next_start(service: Service) -> None:
    flow = service.ask("/flows/", {"name": "of a terminal"})
    running = {"flow_id": flow["id"], "state": {"type": "RUNNING"}}
    left, alive = (service.ask("/flow_runs/", running)["id"] for _ in range(2))
    record = {"command": "hone run x", "api": f"{service.prefect_url}/api", "pid": 1, "host": socket.gethostname()}
    path = service.home / "runs" / "1-0.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(f"{json.dumps(record)}\n{left}\n")
    with record_run(Home(service.home), "hone run y", record["api"]) as add_flow_run:
        add_flow_run(alive)
        service.up()
        assert [service.state(run) for run in (left, alive)] == ["CRASHED", "RUNNING"]
    assert not path.exists()
    message = service.ask(f"/flow_runs/{left}")["state"]["message"]
    assert message == f"The process of `hone run x` (1 on {socket.gethostname()}) was killed."


def test_a_run_by_hand_is_in_the_same_places_as_one_from_the_form(service: Service, small: dict[str, Any]) -> None:
    done = service.hone("run", "conf/small.yaml")
    assert done.returncode == 0, done.stderr
    version = ask(f"{service.mlflow_url}/api/2.0/mlflow/registered-models/alias?name=small&alias=candidate")
    assert version["model_version"]["version"] == "1"
    by_hand = service.ask("/flow_runs/filter", FINETUNE | {"sort": "START_TIME_DESC", "limit": 1})[0]
    assert (by_hand["name"], by_hand["state_type"]) == ("finetune small", "COMPLETED")
    # Its artifacts link to pages of MLflow, whose files are there.
    by_run = {"artifacts": {"flow_run_id": {"any_": [by_hand["id"]]}}}
    artifacts = {item["key"]: item["data"] for item in service.ask("/artifacts/filter", by_run)}
    run_id = version["model_version"]["run_id"]
    for title, file in (("Report", "report.html"), ("Data Docs", "data_docs.html")):
        data = artifacts[f"{title.lower().replace(' ', '-')}-small"]
        link = rf"\[{title}\]\({service.mlflow_url}/#/experiments/\d+/runs/{run_id}/artifacts/{file}\?[^)]*\)"
        assert re.fullmatch(link, data), data
        assert re.search(link, artifacts["version-small"])
        with urllib.request.urlopen(f"{service.mlflow_url}/get-artifact?path={file}&run_id={run_id}") as answer:
            assert b"<html" in answer.read()
    assert f"[Model version]({service.mlflow_url}/#/models/small/versions/1?" in artifacts["version-small"]
    # From the form: a whole configuration, and a file in conf/ with changes.
    changed = {"config": "small", "settings": {"seed": 17}, "changes": ["evaluation.resamples=150"]}
    forms: list[dict[str, Any]] = [{"config": small}, changed]
    for run in [service.start("finetune/finetune", **form) for form in forms]:
        assert service.ended(run) == "COMPLETED"
        assert service.ask(f"/flow_runs/{run}")["name"] == "finetune small"
        assert service.ask(f"/flow_runs/{run}")["work_pool_name"] == "hone"
    # What was found in the store and what had a reason to run is in the log.
    filters = {"logs": {"flow_run_id": {"any_": [run]}}}
    messages = [line["message"] for line in service.ask("/logs/filter", filters)]
    assert [message for message in messages if message.startswith("train: cached: ")]
    assert "evaluate starts: evaluation.resamples 200 -> 150" in messages


def test_schedules_start_runs(service: Service) -> None:
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 200}
    names = ("reconcile/watch-registry", "retrain/retrain-weekly", "monitor/monitor")
    wanted = [service.ask(f"/deployments/name/{name}")["id"] for name in names]

    def upcoming() -> dict[str, Any]:
        found = {run["deployment_id"]: run["parameters"] for run in service.ask("/flow_runs/filter", scheduled)}
        return found if set(wanted) <= set(found) else {}

    parameters = until(upcoming, 120)
    assert [parameters[one] for one in wanted] == [{}, {"started_by": "schedule"}, {}]
    monitor = service.ask("/deployments/name/monitor/monitor")["id"]
    often = [{"schedule": {"interval": 15}, "active": True}]
    [made] = service.ask(f"/deployments/{monitor}/schedules", often)
    ended = {"flow_runs": {"deployment_id": {"any_": [monitor]}, "state": {"type": {"any_": ["COMPLETED", "FAILED"]}}}}
    try:
        run = until(lambda: service.ask("/flow_runs/filter", ended), 180)[0]
    finally:
        service.ask(f"/deployments/{monitor}/schedules/{made['id']}", method="DELETE")
    assert (run["auto_scheduled"], run["state_name"]) == (True, "Nothing to monitor")


def test_an_alias_moved_by_hand_is_noticed_at_once(service: Service) -> None:
    """Not when the schedule comes round: MLflow's webhook starts watch-registry."""
    with service.unscheduled("reconcile/watch-registry"):
        move_by_hand(service, "by-hand", {})
        [run] = until(lambda: service.noticed("by-hand"), 60)
        assert service.ended(run) == "COMPLETED"
    told = service.hone("history", "by-hand").stdout
    assert "moved by hand" in told and "could not judge it" in told


def test_what_the_service_writes_is_private(service: Service) -> None:
    paths = (service.home, *service.home.rglob("*"))
    assert len(paths) > 10
    modes = {}
    for path in paths:
        with suppress(FileNotFoundError):  # a database's journal, removed meanwhile
            modes[path] = path.lstat().st_mode
    assert not [path for path, mode in modes.items() if not stat.S_ISLNK(mode) and mode & 0o077]


def test_mlflow_answers_to_its_own_names_alone(service: Service) -> None:
    url = f"{service.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert [status(url), status(url, Host="rebound.example")] == [200, 403]


def test_a_form_offers_files_and_refuses_what_cannot_run(service: Service, small: dict[str, Any]) -> None:
    schema = service.ask("/deployments/name/finetune/finetune")["parameter_openapi_schema"]
    file = schema["properties"]["config"]["anyOf"][0]
    assert file["enum"] == sorted(file.stem for file in (service.place / "conf").glob("*.yaml"))
    runs = service.ask("/flow_runs/count", FINETUNE)
    wrong: dict[str, dict[str, Any]] = {
        "config": {"config": "nowhere"},
        "'ingest' is a required property": {"config": {"name": "small", "model": {"base": "x"}}},
        "epochs": {"config": small | {"training": {"epochs": -3}}},
        "settings.epochs": {"config": "small", "settings": {"epochs": -3}},
        "section.field=value": {"config": "small", "changes": ["training.epohs=5"]},
        "a number after =": {"config": "small", "changes": ["training.epochs=many"]},
    }
    for message, parameters in wrong.items():
        with pytest.raises(urllib.error.HTTPError) as refusal:
            service.start("finetune/finetune", **parameters)
        assert refusal.value.code == 409
        assert message in refusal.value.read().decode(), message
    assert service.ask("/flow_runs/count", FINETUNE) == runs


def test_what_a_person_set_stays_when_all_is_applied_again(service: Service, tmp_path: Path) -> None:
    file = service.place / "deployments" / "prefect.yaml"
    kept = file.read_text()
    tree = yaml.safe_load(kept)
    weekly = {"slug": "weekly", "cron": "0 3 * * 1", "timezone": "UTC"}
    tree["deployments"].append(tree["deployments"][0] | {"name": "scheduled", "schedules": [weekly]})
    automation, link = service.place / "deployments" / "automations" / "tried.yaml", tmp_path / "link"
    automation.parent.mkdir(exist_ok=True)
    rule = {
        "name": "tried",
        "trigger": {"type": "event", "expect": ["hone.tried"], "posture": "Reactive", "threshold": 1},
        "actions": [{"type": "run-deployment", "deployment": "scheduled", "parameters": {"config": "small"}}],
    }
    try:
        file.write_text(yaml.safe_dump(tree))
        automation.write_text(yaml.safe_dump(rule))
        service.more["HONE_NOTIFY_URL"] = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
        assert "notifications   slack://...\n" in service.up("--gpu-slots", "3")
        del service.more["HONE_NOTIFY_URL"]
        scheduled = service.ask("/deployments/name/finetune/scheduled")
        (made,) = service.ask("/automations/filter", {"automations": {"name": {"any_": ["tried"]}}})
        assert made["actions"][0]["deployment_id"] == scheduled["id"]
        assert service.ask("/v2/concurrency_limits/gpu")["limit"] == 3

        schedule = scheduled["schedules"][0]["id"]
        service.ask(f"/deployments/{scheduled['id']}/schedules/{schedule}", {"active": False}, method="PATCH")
        service.ask(f"/automations/{made['id']}", {"enabled": False}, method="PATCH")
        service.ask("/v2/concurrency_limits/gpu", {"limit": 2}, method="PATCH")
        automation.write_text(yaml.safe_dump(rule | {"description": "Changed."}))
        notifying = {"automations": {"name": {"any_": ["notify-run-failed"]}}}
        (before,) = service.ask("/automations/filter", notifying)
        # From a folder of the project, reached by a link, in a shell without HONE_NOTIFY_URL.
        link.symlink_to(service.place)
        assert "notifications   slack://...\n" in replace(service, place=link / "conf").up()
        assert [found["id"] for found in service.ask("/automations/filter", notifying)] == [before["id"]]
        assert [s["active"] for s in service.ask("/deployments/name/finetune/scheduled")["schedules"]] == [False]
        (now,) = service.ask("/automations/filter", {"automations": {"name": {"any_": ["tried"]}}})
        assert (now["id"], now["description"], now["enabled"]) == (made["id"], "Changed.", False)
        assert service.ask("/v2/concurrency_limits/gpu")["limit"] == 2
    finally:
        file.write_text(kept)
        automation.unlink()
        service.more.pop("HONE_NOTIFY_URL", None)
        service.ask("/v2/concurrency_limits/gpu", {"limit": 1}, method="PATCH")


def test_the_service_moves_to_another_project_only_when_it_is_asked_to(service: Service, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(service.place / "deployments", other / "deployments")
    (other / "conf").mkdir()
    (other / "conf/moved.yaml").write_text("name: moved\n")
    elsewhere = replace(service, place=other)
    pool = service.ask("/work_pools/hone")
    refused = elsewhere.hone("up")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{other}: the service belongs to another project, {service.place}\n" in refused.stderr
    # A deployment that Prefect refuses moves nothing, and is one line rather than a schema.
    file = other / "deployments/prefect.yaml"
    tree = yaml.safe_load(file.read_text())
    weekly = next(entry for entry in tree["deployments"] if entry["name"] == "retrain-weekly")
    weekly["parameters"] = {"config": "nowhere"}
    file.write_text(yaml.safe_dump(tree))
    refused = elsewhere.hone("up", "--project", other)
    reason = (
        "Validation failed for field 'config'. Failure reason: 'nowhere' is not valid under any of the given schemas"
    )
    assert refused.returncode == 2
    assert f"Prefect refuses the deployment retrain-weekly: {reason}\n" in refused.stderr
    assert len(refused.stderr.splitlines()) == 3
    assert service.ask("/work_pools/hone") == pool
    assert read_record(Home(service.home)).project == str(service.place)
    try:
        weekly["parameters"] = {"config": "moved"}
        file.write_text(yaml.safe_dump(tree))
        assert f"project         {other}\nconfigurations  1: moved\n" in service.hone("up", "--project", other).stdout
        run = service.start("finetune/finetune", config="moved")  # a name that only the other form offers
        assert service.ended(run) == "FAILED"
        assert "ConfigError: conf/moved.yaml: 2 errors" in service.ask(f"/flow_runs/{run}")["state"]["message"]
    finally:
        service.up("--project", service.place, "--no-notifications")
    assert service.ask("/automations/filter", {"automations": {"name": {"any_": ["notify-run-failed"]}}}) == []


def assert_deleted_for_all(
    service: Service, secrets: dict[str, str], url: str, number: str, small: dict[str, Any]
) -> None:
    """A version that is deleted in MLflow is reported as deleted by all who know the password, and by no others.

    `url` is that of MLflow's database.
    """
    again = ("plan", "conf/small.yaml", "evaluation.resamples=150")
    assert "no longer in MLflow" not in service.hone(*again).stdout
    database = url.replace("postgresql://", "postgresql+psycopg://")
    assert not describe_fault(database, "small", number)
    delete = f"{service.mlflow_url}/api/2.0/mlflow/model-versions/delete"
    ask(delete, {"name": "small", "version": number}, secrets["mlflow"], "DELETE")
    assert describe_fault(database, "small", number)  # read without the server
    assert f"version {number} of small is no longer in MLflow" in service.hone(*again).stdout
    unknown = f"models:/small/{number} in {service.mlflow_url}: there is no such model version in MLflow"
    readers = (
        ("promote", "small", "--version", number),
        ("predict", "small", "--version", number, "--input", small["ingest"]["source"]["paths"][0], "--output=o/"),
        ("plan", "conf/small.yaml", f"model.base=models:/small/{number}"),
    )
    for words in readers:
        done = service.hone(*words)
        assert (done.returncode, unknown in done.stderr) == (5, True), (words, done.stdout, done.stderr)
    guessed = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "guessed"}
    done = service.hone(*again, MLFLOW_TRACKING_URI=service.mlflow_url, **guessed)
    assert (done.returncode, "MLflow refused the credentials" in done.stderr) == (2, True), done.stderr


@pytest.mark.timeout(1200)
def test_with_passwords_on_postgresql(tmp_path: Path, place: Path, small: dict[str, Any], postgresql: Cluster) -> None:
    for name in ("prefect", "mlflow"):
        postgresql.execute(f"create database {name}")
    service = Service(tmp_path / "hone", place, plain=True)
    run_ahead(parse_config(small), Home(service.home), lambda: True)  # so that the first run soon trains
    databases = (f"--{name}-database={postgresql.url_of(name)}" for name in ("prefect", "mlflow"))
    with service.running("--auth", *databases):
        secrets = service.secrets()
        prefect, mlflow = (
            (f"{service.prefect_url}/api/version", secrets["prefect"]),
            (f"{service.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0", secrets["mlflow"]),
        )
        for url, password in (prefect, mlflow):
            assert [status(url), status(url, "guessed"), status(url, password)] == [401, 401, 200]

        # `hone down` in the middle of a training: nothing of it is left, and the run does not stay `Running`.
        long = small | {"training": small["training"] | {"epochs": 1000, "checkpoint_seconds": 0.5}}
        run = service.start("finetune/finetune", secrets["prefect"], config=long)
        until(lambda: list(service.home.glob("store/work/train-*/checkpoints")))
        running = processes(service)
        assert len(running["worker"]) > 2
        urls = service.prefect_url, service.mlflow_url
        down = service.hone("down")
        assert down.stdout == "ended: worker, webhook, mlflow, prefect\n"
        assert not any(process.is_running() for part in running.values() for process in part)
        assert service.hone("down").stdout == "nothing runs\n"
        refused = service.hone("run", "conf/small.yaml", "evaluation.resamples=160")
        assert refused.returncode == 8
        assert "hone up" in refused.stderr

        # Up again, as it was: the same places, passwords and records. From here on no test is about processes.
        service = replace(service, plain=False)
        service.up()
        assert (service.prefect_url, service.mlflow_url) == urls
        assert service.secrets() == secrets
        assert service.ended(run, secrets["prefect"]) == "CRASHED"
        for url, password in (prefect, mlflow):
            assert [status(url), status(url, password)] == [401, 200]
        # The worker, the webhook and `hone run` know the passwords; MLflow can read the webhook's secret.
        with service.unscheduled("reconcile/watch-registry", secrets["prefect"]):
            move_by_hand(service, "by-hand", secrets)
            [run] = until(lambda: service.noticed("by-hand", secrets["prefect"]), 60)
            assert service.ended(run, secrets["prefect"]) == "COMPLETED"
        run = service.start("finetune/finetune", secrets["prefect"], config="small")
        assert service.ended(run, secrets["prefect"]) == "COMPLETED"
        done = service.hone("run", "conf/small.yaml", "evaluation.resamples=150")
        assert done.returncode == 0, done.stderr
        runs = service.ask("/flow_runs/filter", FINETUNE | {"sort": "START_TIME_DESC", "limit": 2}, secrets["prefect"])
        assert [(run["name"], run["state_type"]) for run in runs] == [("finetune small", "COMPLETED")] * 2

        number = done.stdout.partition("small version ")[2].partition(",")[0]
        assert_deleted_for_all(service, secrets, postgresql.url_of("mlflow"), number, small)
        for log in service.home.glob("logs/*.log"):
            assert not [word for word in (SECRET, QUOTED, *secrets.values()) if word in log.read_text()], log


def test_a_server_that_does_not_come_up_is_told_and_nothing_is_left(tmp_path: Path, place: Path) -> None:
    service = Service(tmp_path / "hone", place)
    failed = service.hone("up", "--prefect-database", "postgresql://hone:geheim@127.0.0.1:1/hone")
    assert failed.returncode == 8
    assert "the prefect server did not start" in failed.stderr
    assert "Connect call failed" in failed.stderr
    assert "geheim" not in failed.stderr
    assert not any(processes(service).values())
