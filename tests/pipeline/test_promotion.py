"""Promotion, rollback and the watch over the registry, on a real Prefect server: flows started through its API."""

from __future__ import annotations

import os
import subprocess
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hone.promotion.champion import get_standing, move_champion
from hone.promotion.journal import Journal
from hone.promotion.promote import open_journal
from hone.tracking.aliases import list_aliases
from hone.tracking.run_files import TAG
from tests import preloaded
from tests.pickles import find_pickles
from tests.polling import until
from tests.services import ask
from tests.tiny_versions import MODEL, Versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SECONDS = 240
SERVE = """
from prefect import serve
from prefect.deployments.runner import EntrypointType
from flows.promote import promote
from flows.reconcile import reconcile
from flows.rollback import rollback
module = EntrypointType.MODULE_PATH
serve(promote.to_deployment("promote", entrypoint_type=module),
      rollback.to_deployment("rollback", entrypoint_type=module),
      reconcile.to_deployment("watch-registry", entrypoint_type=module))
"""


class Prefect:
    """The server as its UI uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self, deployment: str, **parameters: Any) -> str:
        found = ask(f"{self.url}/deployments/name/{deployment}")
        made = ask(f"{self.url}/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def wait(self, run: str, *types: str) -> dict[str, Any]:
        """The run's state, once it is of one of `types`."""

        def reached() -> dict[str, Any] | None:
            state: dict[str, Any] = ask(f"{self.url}/flow_runs/{run}")["state"]
            if state["type"] in types:
                return state
            assert state["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), state
            return None

        return until(reached, SECONDS)

    def answer(self, run: str, **given: str) -> dict[str, Any]:
        answered: dict[str, Any] = ask(f"{self.url}/flow_runs/{run}/resume", {"run_input": given})
        return answered

    def form(self, run: str) -> dict[str, Any]:
        """What the UI shows of a run that waits: its form and the text above it."""
        keys = ask(f"{self.url}/flow_runs/{run}")["state"]["state_details"]["run_input_keyset"]

        def kept() -> dict[str, Any] | None:
            """The form; Prefect keeps it a moment after the run's state says that it waits."""
            with suppress(urllib.error.HTTPError):
                return {
                    name: ask(f"{self.url}/flow_runs/{run}/input/{key}")
                    for name, key in keys.items()
                    if name != "response"
                }
            return None

        return until(kept, SECONDS)

    def tasks(self, run: str) -> list[str]:
        found = ask(f"{self.url}/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return [f"{task['name'].rsplit('-', 1)[0]} {task['state']['name']}" for task in found]

    def events(self, event: str, at_least: int = 1) -> list[dict[str, Any]]:
        """The model's events of a name, once there are so many."""
        wanted = {"filter": {"event": {"name": [event]}, "resource": {"id": [f"hone.model.{MODEL}"]}}}

        def found() -> list[dict[str, Any]]:
            events: list[dict[str, Any]] = ask(f"{self.url}/events/filter", wanted)["events"]
            return events if len(events) >= at_least else []

        return until(found, 60)


@pytest.fixture
def journal(versions: Versions) -> Journal:
    """That of the model, whose champion is its weak version 1: set on the command line, and told to nobody."""
    found = open_journal(versions.uri, MODEL)
    crown(found, "1")
    return found


def crown(journal: Journal, version: str) -> None:
    start = get_standing(journal)
    given = {"action": "promoted", "who": "ada", "why": "first", "figures": {}, "previous": start.champion}
    journal.set_state(move_champion(journal, start, version, **given), "done")


def champion(journal: Journal) -> str:
    return list_aliases(journal.client, MODEL)["champion"]


def last(journal: Journal) -> Any:
    return journal.records()[-1].entry


@pytest.fixture
def prefect(prefect_url: str, environment: dict[str, str], versions: Versions, tmp_path: Path) -> Iterator[Prefect]:
    """The server, and a process that runs the deployments."""
    more = {"MLFLOW_TRACKING_URI": versions.uri, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    log = (tmp_path / "serve.log").open("w")
    with subprocess.Popen(
        [preloaded.python(), "-c", SERVE], env=environment | more, cwd=Path(__file__).parents[2], stdout=log, stderr=log
    ) as served:
        try:
            yield deployed(Prefect(prefect_url), served, tmp_path / "serve.log")
        finally:
            served.terminate()


def deployed(prefect: Prefect, served: subprocess.Popen[bytes], log: Path) -> Prefect:
    """Return when the deployments are there, and not those of an earlier test."""
    until(lambda: "watch-registry" in log.read_text() or served.poll() is not None, SECONDS)
    assert served.poll() is None, log.read_text()
    return prefect


def wait_for_question(prefect: Prefect, journal: Journal) -> str:
    """Start a promotion, which asks a person and frees its worker while it waits; the flow run's id."""
    run = prefect.start("promote/promote", model=MODEL)
    state = prefect.wait(run, "PAUSED")
    assert state["name"] == "Suspended"
    assert champion(journal) == "1"
    form = prefect.form(run)
    assert set(form["schema"]["properties"]) == {"decision", "who", "reason"}
    assert "| accuracy: better | test |" in form["description"]
    [waiting] = prefect.events("hone.candidate.waiting")
    assert waiting["payload"]["what"] == f"{MODEL}: version 2 waits for approval"
    assert waiting["payload"]["link"].endswith(f"/runs/flow-run/{run}")  # where it can be approved
    assert ask(f"{prefect.url}/flow_runs/{run}")["name"] == f"promote {MODEL}"
    assert "all gates passed" in waiting["payload"]["why"] and waiting["payload"]["figures"]["test/rows"] == 100
    artifacts = ask(f"{prefect.url}/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert f"promotion-{MODEL}" in [item["key"] for item in artifacts]
    return run


def test_a_day_of_promotions(prefect: Prefect, journal: Journal, tmp_path: Path) -> None:
    run = wait_for_question(prefect, journal)
    # A form that is not filled in is refused by the form.
    refused = prefect.answer(run, decision="approve")
    assert refused["status"] == "REJECT" and "who" in refused["details"]["reason"], refused
    assert prefect.wait(run, "PAUSED")

    # Rejected: the comparison is not made again, the champion stays.
    assert prefect.answer(run, decision="reject", who="eve", reason="not today")["status"] == "ACCEPT"
    state = prefect.wait(run, "COMPLETED")
    assert state["name"] == "Rejected"
    assert f"{MODEL} version 2 was rejected by eve: not today" == state["message"]
    assert f"compare the candidate of {MODEL} with the champion Cached" in prefect.tasks(run)
    assert (last(journal).action, last(journal).who, last(journal).why) == ("refused", "eve", "not today")
    assert champion(journal) == "1"
    assert len(prefect.events("hone.candidate.waiting")) == 1

    # Approved: moved, journalled with the name on the form, told to those who listen.
    run = prefect.start("promote/promote", model=MODEL)
    prefect.wait(run, "PAUSED")
    prefect.form(run)  # until Prefect has it, an answer is refused
    approved = prefect.answer(run, decision="approve", who="ada", reason="better on every slice")
    assert approved["status"] == "ACCEPT", approved
    state = prefect.wait(run, "COMPLETED")
    moved = f"{MODEL}: version 2 is the champion (was 1), promoted by ada"
    assert (state["name"], state["message"]) == ("Promoted", f"{moved}: better on every slice")
    assert list_aliases(journal.client, MODEL) == {"candidate": "2", "champion": "2", "previous": "1"}
    assert (last(journal).action, last(journal).who) == ("promoted", "ada")
    changed = prefect.events("hone.champion.changed", 2)  # the one on the command line was not told of before
    payloads = {event["payload"]["number"]: event["payload"] for event in changed}
    assert payloads[last(journal).number]["why"] == "better on every slice"
    assert payloads[last(journal).number]["to_version"] == "2"
    assert payloads[last(journal).number]["what"] == moved
    assert {event["resource"]["hone.action"] for event in changed} == {"promoted"}

    # By hand, back to the weak one: noticed, judged, and put back.
    journal.client.set_registered_model_alias(MODEL, "champion", "1")
    run = prefect.start("reconcile/watch-registry", enforce=True)
    message = prefect.wait(run, "COMPLETED")["message"]
    assert f"{MODEL}: version 1 is the champion (was 2), moved by hand in MLflow: the gates, after" in message
    assert f"{MODEL}: version 2 is the champion again (was 1), put back by watch-registry: " in message
    assert champion(journal) == "2"
    assert [kept.entry.action for kept in journal.records()][-2:] == ["moved by hand", "put back"]
    assert len(prefect.events("hone.champion.changed", 4)) == 4

    # What the gates refuse is not asked about; auto needs nobody.
    run = prefect.start("promote/promote", model=MODEL, version="1", policy="auto")
    state = prefect.wait(run, "COMPLETED")
    assert (state["name"], champion(journal)) == ("Refused", "2")

    # Rolled back by its deployment.
    run = prefect.start("rollback/rollback", model=MODEL, who="bob", why="wrong on Mondays")
    state = prefect.wait(run, "COMPLETED")
    back = f"{MODEL}: version 1 is the champion again (was 2), rolled back by bob"
    assert (state["name"], state["message"]) == ("Rolled back", f"{back}: wrong on Mondays")
    assert list_aliases(journal.client, MODEL)["champion"] == "1"
    [event] = prefect.events("hone.rolled-back")
    assert (event["payload"]["what"], event["payload"]["why"]) == (back, "wrong on Mondays")
    assert event["payload"]["severity"] == "warning"

    kept = tmp_path / "hone" / "promotions"
    assert len([file for file in kept.rglob("*") if file.is_file()]) >= 4  # comparisons and questions
    assert find_pickles(kept) == []


def test_a_run_that_is_started_again_after_its_move_ends_well_and_moves_nothing(
    prefect: Prefect, journal: Journal
) -> None:
    run = prefect.start("promote/promote", model=MODEL, policy="auto", who="ada")
    assert prefect.wait(run, "COMPLETED")["name"] == "Promoted"
    entries = len(journal.records())
    # As after a kill between the move and the end of the run.
    ask(
        f"{prefect.url}/flow_runs/{run}/set_state",
        {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True},
    )
    until(lambda: ask(f"{prefect.url}/flow_runs/{run}")["run_count"] == 2, SECONDS)
    state = prefect.wait(run, "COMPLETED")
    moved = f"{MODEL}: version 2 is the champion (was 1), promoted by ada"
    assert state["message"].startswith(moved) and "(promoted by ada at " in state["message"]
    assert len(journal.records()) == entries and champion(journal) == "2"


def test_an_approval_that_nobody_gives_expires(
    prefect: Prefect, journal: Journal, trained_versions: Versions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import yaml

    # The candidate's own configuration, which waits for a second.
    run_id = journal.client.get_model_version(MODEL, "2").run_id
    digests = journal.client.get_run(run_id).data.tags[TAG]
    before = Path(journal.client.download_artifacts(run_id, "config.yaml", str(tmp_path))).read_text()
    tree = yaml.safe_load(before)
    tree["promotion"]["expires_hours"] = 0.0001
    journal.client.set_tag(run_id, TAG, "{}")  # as of an earlier release
    journal.client.log_text(run_id, yaml.safe_dump(tree), "config.yaml")
    try:
        run = prefect.start("promote/promote", model=MODEL)
        state = prefect.wait(run, "FAILED")
    finally:
        journal.client.log_text(run_id, before, "config.yaml")
        journal.client.set_tag(run_id, TAG, digests)
    assert "never resumed" in state["message"]
    assert champion(journal) == "1"
    assert prefect.answer(run, decision="approve", who="ada")["status"] != "ACCEPT"
    assert champion(journal) == "1"


def test_on_the_command_line(versions: Versions, hone: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    journal, store = open_journal(versions.uri, MODEL), {"MLFLOW_TRACKING_URI": versions.uri}
    crown(journal, "1")
    # manual, with nobody to ask
    alone = hone("promote", MODEL, **store)
    assert alone.returncode == 2 and "--yes" in alone.stderr
    assert "accuracy: better" in alone.stdout
    done = hone("promote", MODEL, "--yes", "--why", "more [/epochs]", "--who", "ada", **store)
    assert done.returncode == 0, done.stderr
    assert "topics version 2 is the champion, version 1 is previous" in done.stdout
    assert champion(journal) == "2"
    again = hone("promote", MODEL, "--yes", **store)
    assert (again.returncode, "Nothing moved: promoted by ada" in again.stdout) == (0, True), again.stderr
    refused = hone("promote", MODEL, "--version", "1", "--policy", "auto", **store)
    assert refused.returncode == 9 and "refused by test: accuracy: better" in refused.stderr
    for version, words in (("1", ()), ("1", ()), ("2", ("--undo",))):
        back = hone("rollback", MODEL, "--why", "to see", *words, **store)
        assert back.returncode == 0, back.stderr
        assert f"version {version} is the champion again" in back.stdout
        assert champion(journal) == version
    told = hone("history", MODEL, **store)
    assert told.returncode == 0
    entries = [line.split()[0] for line in told.stdout.splitlines() if line[:1].isdigit()]
    assert entries == [str(1 + at) for at in range(len(entries))]
    for word in ("promoted", "refused", "rolled back", "more [/epochs]", "ada"):
        assert word in told.stdout
    # An entry that someone took out is missed.
    journal.client.delete_run(journal.records()[1].run_id)
    broken = hone("history", MODEL, **store)
    assert broken.returncode == 7 and "chain is broken" in broken.stderr
    assert os.environ.get("MLFLOW_TRACKING_URI") is None
