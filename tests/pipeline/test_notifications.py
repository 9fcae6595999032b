"""What people are told, through real automations of a real Prefect server, and what nobody is told: secrets."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import preloaded
from tests.polling import until
from tests.receiving import TOKEN, Receiver, receive
from tests.workers import ROOT, Workers

pytestmark = pytest.mark.slow

PASSWORD = "password-of-the-tickets-database"

# What other parts of Hone tell in the middle of a run.
TELL = """
from prefect import flow
from tasks.runtime.events import emit_model_event as emit

@flow
def told():
    link = "http://127.0.0.1:1/there"
    emit("hone.drift.detected", "small", what="small: inputs drifted", why="length", link=link, severity="warning")
    emit("hone.candidate.waiting", "small", what="small: version 2 waits", why="policy manual", link=link)
    for action, what in (("promoted", "small: version 2 is the champion"), ("rolled back", "small: version 1 is back")):
        labels = {"hone.action": action}
        emit("hone.champion.changed", "small", what=what, why="asked by kim", link=link, labels=labels)
    emit("hone.rolled-back", "small", what="small: version 1 is back", why="", link=link, severity="warning")

told()
"""

# `hone run` meets a wrong query before its flow begins; a worker meets it inside.
FINETUNE = """
import sys
from pathlib import Path
from flows.finetune import finetune
from hone.config.file import load_config

finetune(load_config(Path(sys.argv[1]), sys.argv[2:]))
"""

# As `hone up` does it with HONE_NOTIFY_URL (the second word), without it, and with --no-notifications.
APPLY = """
import sys
from pathlib import Path
from prefect.client.orchestration import get_client
from hone.errors import HoneError
from hone_app.deploy.apply import get_recipient
from hone_app.deploy.automations import apply_automations
from hone_app.deploy.notifications import describe_recipient

folder, url, switch = Path(sys.argv[1]), *sys.argv[2:]
with get_client(sync_client=True) as client:
    try:
        recipient = get_recipient(client, url, folder) if switch == "on" else None
        shown = describe_recipient(client, recipient) if recipient else "none"
        print(len(apply_automations(client, folder, recipient)), shown, end="")
    except HoneError as fault:
        print(fault)
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


def set_up(workers: Workers, url: str, folder: Path, switch: str = "on") -> str:
    """What is said when the automations of `folder` are applied."""
    command = [preloaded.python(), "-c", APPLY, str(folder), url, switch]
    done = subprocess.run(command, env=workers.environment(), cwd=workers.home, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The automations that notify."""
    folder = tmp_path_factory.mktemp("automations")
    for file in (ROOT / "deployments/automations").glob("notify-*.yaml"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def notified(workers: Workers, receiver: Receiver, folder: Path) -> Iterator[Receiver]:
    host = receiver.url.partition("/hook")[0]
    assert set_up(workers, "", folder) == "0 none"
    assert set_up(workers, receiver.url, folder) == f"6 {host}"
    assert set_up(workers, "", folder) == f"6 {host}"  # as it was, also for an automation that is new
    yield receiver
    assert set_up(workers, receiver.url, folder, "off") == "0 none"
    assert not [found for found in workers.client.read_automations() if found.name.startswith("notify-")]
    assert set_up(workers, "", folder) == "0 none"


@pytest.fixture(scope="module")
def secretive(workers: Workers, rows_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose rows lie in a database that is opened with a password."""
    folder = tmp_path_factory.mktemp("secretive")
    with sqlite3.connect(folder / "rows.sqlite") as database:
        database.execute("create table tickets (text text, topic text)")
        rows = [line.rsplit(",", 1) for line in rows_csv.read_text().splitlines()[1:]]
        database.executemany("insert into tickets values (?, ?)", rows)
    url = f"sqlite:///file:{folder}/rows.sqlite?uri=true&password=${{TICKETS_PASSWORD}}"
    source = {"kind": "sql", "url": url, "query": "select text, topic from tickets order by rowid"}
    tree = workers.config | {
        "name": "secretive",
        "ingest": {"source": source, "columns": {"label": "topic"}},
        "training": {"epochs": 1, "batch_size": 16},
        "evaluation": {"resamples": 200},
    }
    (folder / "secretive.yaml").write_text(yaml.safe_dump(tree))
    return folder / "secretive.yaml"


def hone(workers: Workers, *words: str) -> subprocess.CompletedProcess[str]:
    run = workers.hone(*words, TICKETS_PASSWORD=PASSWORD, PREFECT_LOGGING_LEVEL="DEBUG")
    out, err = run.communicate()
    return subprocess.CompletedProcess(words, run.returncode, out, err)


def test_each_of_the_six_says_what_why_and_where(workers: Workers, notified: Receiver, secretive: Path) -> None:
    done = hone(workers, str(secretive), "validation.max_median_tokens=3")
    assert done.returncode == 4, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    subprocess.run([preloaded.python(), "-c", TELL], env=workers.environment(), cwd=workers.home, check=True)
    # After these, so that a second message about the stopped run would have come before this one.
    failed_run = hone(workers, str(secretive), "tokenization.max_length=4", "tokenization.max_truncated=0")
    assert failed_run.returncode == 3, failed_run.stderr
    failed = notified.about("secretive: finetune secretive failed")
    for severity, what, why in (
        ("warning", "small: inputs drifted", ": length"),
        ("info", "small: version 2 waits", ": policy manual"),
        ("info", "small: version 2 is the champion", ": asked by kim"),
        ("warning", "small: version 1 is back", ""),
    ):
        message = notified.about(what)
        assert message["title"] == f"Hone {severity}: {what}"
        assert message["message"].splitlines() == [f"{what}{why}", "http://127.0.0.1:1/there"]
    stopped = notified.about("secretive: validation stopped")
    page = re.escape(f"{workers.url.removesuffix('/api')}/runs/flow-run/") + "[0-9a-f-]{36}$"
    assert all(re.search(page, message["message"]) for message in (stopped, failed))
    # Why, with the figure; rows of the data stay in the data folder.
    why = r": 3 of \d+ expectations do not hold; train: .*hone_tokens\): 14.0; expected min_value 1, max_value 3;"
    assert re.search(why, stopped["message"]), stopped
    assert re.match(r"secretive: finetune secretive failed: DataError: .*truncated", failed["message"]), failed
    assert [failed["title"], stopped["title"]] == [
        "Hone error: secretive: finetune secretive failed",
        "Hone warning: secretive: validation stopped the run of secretive",
    ]
    assert not any("our own old friends" in message["message"] for message in (stopped, failed))
    # Each comes once: a rollback is no promotion, and the end of a stopped run is no failure.
    titles = [message["title"] for message in notified.messages]
    assert sorted(titles) == sorted(set(titles)), titles
    assert len(titles) == 6
    [run] = [run for run in workers.client.read_flow_runs() if run.state_name == "Validation stopped"]
    assert run.state.message.startswith("validation: 3 of ")


def test_a_secret_is_nowhere_but_in_the_environment_and_the_block(
    workers: Workers, notified: Receiver, secretive: Path
) -> None:
    done = hone(workers, str(secretive))
    assert done.returncode == 0, done.stderr
    query = "ingest.source.query=select text from nowhere"
    wrong = subprocess.run(
        [preloaded.python(), "-c", FINETUNE, str(secretive), query],
        env=workers.environment() | {"TICKETS_PASSWORD": PASSWORD},
        cwd=workers.home,
        capture_output=True,
        text=True,
    )
    assert "no such table: nowhere" in wrong.stderr
    until(lambda: any("no such table" in message["message"] for message in notified.messages))
    kept = {file: file.read_bytes() for file in workers.home.rglob("*") if file.is_file()}
    everything = b"".join(kept.values())
    # Prefect's database with parameters, logs, artifacts and events; MLflow's; the report; the store: all are in it.
    assert b"${TICKETS_PASSWORD}" in everything
    assert {"prefect.db", "mlflow.db", "report.html", "config.yaml"} <= {file.name for file in kept}
    assert b"select text from nowhere" in everything
    said = json.dumps(notified.messages) + "".join(run.stdout + run.stderr for run in (done, wrong))
    for secret in (PASSWORD, TOKEN):
        assert secret not in said
        assert not [file for file, content in kept.items() if secret.encode() in content]


def test_a_url_that_apprise_does_not_know_is_refused_without_being_shown(workers: Workers, folder: Path) -> None:
    said = set_up(workers, f"nosuchservice://{TOKEN}", folder)
    assert "HONE_NOTIFY_URL: apprise does not support this URL" in said
    assert TOKEN not in said
    assert "is neither a URL nor the TYPE/NAME of a block" in set_up(workers, "slack-webhook/no-such-block", folder)


def test_a_block_that_was_deleted_is_missed(workers: Workers, notified: Receiver, folder: Path) -> None:
    block = workers.client.read_block_document_by_name("hone-notify", "slack-webhook")
    workers.client.delete_block_document(block.id)
    assert "HONE_NOTIFY_URL: the block that automations notify was deleted" in set_up(workers, "", folder)
    assert set_up(workers, notified.url, folder).startswith("6 ")
