"""The journal: one entry for each number, of two movers one, and what a killed one leaves is finished."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ChampionMoved, ServiceError, StoreError
from hone.promotion.champion import Standing, add_entry, get_standing, move_champion
from hone.promotion.journal import ENTRY, STATE, Claim, Entry, Journal, describe_move, find_faults
from hone.promotion.reconcile import models_with_champion
from hone.tracking.aliases import list_aliases
from hone.tracking.client import connect
from hone_app.cli.main import main
from tests import preloaded

Made = Callable[..., Journal]
NOBODY = Standing("", "", 0)


@pytest.fixture
def made(tracking_uri: str) -> Made:
    """`made(name)` is the journal of a registered model with three versions, none of them a champion."""

    def make(name: str = "tiny", uri: str = tracking_uri, **options: Any) -> Journal:
        client = connect(uri)
        client.create_registered_model(name)
        for _ in range(3):
            client.create_model_version(name, source="s3://nowhere/model")
        return Journal(client, name, **options)

    return make


def moved(journal: Journal, start: Standing, to: str, **more: Any) -> Any:
    given = {"action": "promoted", "who": "ada", "why": "better", "figures": {}, "previous": start.champion}
    return move_champion(journal, start, to, **(given | more))


def aliases(journal: Journal) -> dict[str, str]:
    return list_aliases(journal.client, journal.model)


@pytest.mark.parametrize(
    ("action", "who", "versions", "sentence"),
    [
        ("promoted", "Ada", ("1", "2"), "version 2 is the champion (was 1), promoted by Ada"),
        ("promoted", "Ada", ("", "1"), "version 1 is the champion (the first), promoted by Ada"),
        ("rolled back", "Bob", ("2", "1"), "version 1 is the champion again (was 2), rolled back by Bob"),
        (
            "moved by hand",
            "by hand in MLflow",
            ("2", ""),
            "no version is the champion (was 2), moved by hand in MLflow",
        ),
        (
            "put back",
            "watch-registry",
            ("1", "2"),
            "version 2 is the champion again (was 1), put back by watch-registry",
        ),
    ],
)
def test_a_move_in_one_sentence_names_the_model_first(
    action: Any, who: str, versions: tuple[str, str], sentence: str
) -> None:
    assert describe_move("demo", Entry(1, "2026-11-29", who, action, *versions, why="")) == f"demo: {sentence}"


def test_a_move_is_journalled_and_the_former_champion_is_the_previous_one(made: Made) -> None:
    journal = made()
    moved(journal, get_standing(journal), "1")
    moved(journal, get_standing(journal), "2", figures={"accuracy": 0.9, "digest": "abc"}, why="more rows")
    assert aliases(journal) == {"champion": "2", "previous": "1"}
    first, second = journal.records()
    assert (first.entry.from_version, first.entry.to_version) == ("", "1")
    assert (second.entry.number, second.entry.who, second.entry.why) == (2, "ada", "more rows")
    assert second.entry.before == first.entry.digest
    assert find_faults([first, second]) == []
    # The run of an entry shows it in MLflow's own pages.
    run = journal.client.get_run(second.run_id)
    assert (run.info.status, run.data.metrics["accuracy"]) == ("FINISHED", 0.9)
    file = Path(journal.client.download_artifacts(second.run_id, "entry.json"))
    assert json.loads(file.read_text())["to_version"] == "2"


def test_who_comes_late_moves_nothing_and_is_told_who_was_first(made: Made) -> None:
    journal = made()
    start = get_standing(journal)
    moved(journal, start, "1")
    with pytest.raises(ChampionMoved, match="ada promoted version 1"):
        moved(journal, start, "2")
    assert aliases(journal) == {"champion": "1"}
    assert len(journal.records()) == 1


def test_an_entry_that_moves_nothing_is_in_nobodys_way(made: Made) -> None:
    journal = made()
    start = get_standing(journal)
    told = {"who": "bob", "why": "worse", "from_version": "", "to_version": "3", "figures": {}}
    add_entry(journal, start, action="refused", **told)
    moved(journal, start, "2")
    assert [kept.entry.action for kept in journal.records()] == ["refused", "promoted"]
    assert find_faults(journal.records()) == []


def test_a_champion_moved_by_hand_meanwhile_stays(made: Made) -> None:
    journal = made()
    moved(journal, get_standing(journal), "1")
    start = get_standing(journal)
    journal.client.set_registered_model_alias("tiny", "champion", "3")
    with pytest.raises(ChampionMoved, match="by hand"):
        moved(journal, start, "2")
    assert aliases(journal)["champion"] == "3"
    # The claim was given up: the next one need not wait.
    journal.client.set_registered_model_alias("tiny", "champion", "1")
    moved(journal, get_standing(journal), "2")


def test_a_changed_entry_and_one_taken_out_are_seen(made: Made) -> None:
    journal = made()
    for version in ("1", "2", "3"):
        moved(journal, get_standing(journal), version)
    first, second, _ = journal.records()
    forged = json.loads(journal.client.get_run(second.run_id).data.tags[ENTRY]) | {"who": "mallory"}
    journal.client.set_tag(second.run_id, ENTRY, json.dumps(forged))
    assert find_faults(journal.records()) == [f"entry 2 is not what was written (digest {second.digest[:12]})"]
    journal.client.delete_run(second.run_id)
    assert any("entry 3 does not follow entry 1" in fault for fault in find_faults(journal.records()))
    journal.client.delete_run(first.run_id)
    assert any("entry 3 does not follow the beginning" in fault for fault in find_faults(journal.records()))


@pytest.mark.parametrize(
    ("tag", "content"),
    [(ENTRY, "{"), (ENTRY, "[]"), (ENTRY, '{"number": 2}'), (ENTRY, ""), (STATE, "mowed")],
)
def test_an_entry_that_cannot_be_read_is_one_error_and_history_shows_the_others(
    made: Made,
    tag: str,
    content: str,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    journal, other = made(), made("other")
    for version in ("1", "2"):
        moved(journal, get_standing(journal), version)
    moved(other, get_standing(other), "1")
    run_id = journal.records()[1].run_id
    whole = journal.client.get_run(run_id).data.tags[tag]
    journal.client.set_tag(run_id, tag, content)
    with pytest.raises(StoreError, match=f"entry 2 cannot be read.*{run_id}"):
        get_standing(journal)
    assert models_with_champion(tracking_uri) == ["other", "tiny"]
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "hone"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    assert main(["history", "tiny"]) == StoreError.exit_code
    shown, error = capsys.readouterr()
    assert "promoted" in shown and run_id in error
    # As the error says: the file has what the tag had.
    text = Path(journal.client.download_artifacts(run_id, "entry.json", str(tmp_path))).read_text("utf8")
    journal.client.set_tag(run_id, tag, text if tag == ENTRY else whole)
    assert [record.entry.to_version for record in journal.records()] == ["1", "2"]
    assert find_faults(journal.records()) == []


def test_figures_that_mlflow_would_cut_are_left_out_and_said_to_be(made: Made) -> None:
    journal = made()
    many = {f"test/größe: a long name (of a slice), number {i}": 0.123456 for i in range(300)}
    moved(journal, get_standing(journal), "1", figures=many, why="w" * 5000)
    [kept] = journal.records()
    assert kept.entry.figures["left out"] > 0
    assert find_faults([kept]) == []


def test_an_entry_that_is_being_carried_out_is_waited_for(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.promotion import journal as module

    journal, polls = made(), []
    told = {"who": "ada", "why": "", "from_version": "", "to_version": "1", "figures": {}, "previous": ""}
    with journal.claim() as first:
        journal.write(first, action="promoted", **told)

        def give_up(seconds: float) -> None:
            polls.append(seconds)
            journal.client.delete_experiment(first.experiment)

        monkeypatch.setattr(module.time, "sleep", give_up)  # type: ignore[attr-defined]
        with journal.claim() as second:
            assert (second.number, len(polls)) == (2, 1)


def test_a_holder_that_was_held_up_may_not_move_any_more() -> None:
    with pytest.raises(ServiceError, match="another one may be moving"):
        Claim(7, "1", lease=0.0).check_time()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "server"])
def test_of_two_at_once_exactly_one_wins(store: str, made: Made, tracking_uri: str, tmp_path: Path) -> None:
    from hone.environment import Home
    from hone_app.service.parts import Settings, build_mlflow
    from hone_app.service.servers import use

    uri = use(build_mlflow(Home(tmp_path), Settings())) if store == "server" else tracking_uri
    made(uri=uri)
    journals = [Journal(connect(uri), "tiny") for _ in range(2)]
    barrier = threading.Barrier(2)

    def promote(journal: Journal, to: str) -> str:
        start = get_standing(journal)
        barrier.wait()
        try:
            moved(journal, start, to, who=f"mover of {to}")
        except ChampionMoved as fault:
            return str(fault)
        return "won"

    with ThreadPoolExecutor(2) as pool:
        for turn in range(8):
            now = aliases(journals[0]).get("champion", "")
            both = [version for version in ("1", "2", "3") if version != now][:2]
            said = list(pool.map(promote, journals, both))
            assert said.count("won") == 1, said
            winner = both[said.index("won")]
            assert f"mover of {winner}" in next(word for word in said if word != "won")
            assert aliases(journals[0])["champion"] == winner
            moves = [kept for kept in journals[0].records() if kept.entry.moves]
            assert (len(moves), moves[-1].entry.to_version) == (turn + 1, winner)
    assert find_faults(journals[0].records()) == []


KILLED = """
import os, signal, sys
from hone.tracking.client import connect
from hone.promotion.champion import get_standing, move_champion
from hone.promotion.journal import Journal
import mlflow

def die_at(step):
    def between(name):
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)
    return between

for step in sys.argv[2:]:
    child = os.fork()
    if not child:
        journal = Journal(connect(sys.argv[1]), step)
        move_champion(journal, get_standing(journal), "2", action="promoted", who="ada", why="", figures={},
                      previous="1", between=die_at(step))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_kill_between_any_two_steps_leaves_what_the_next_call_finishes(made: Made, tracking_uri: str) -> None:
    steps = ["entry", "champion", "previous", "state"]
    journals = [made(step) for step in steps]
    for journal in journals:
        moved(journal, get_standing(journal), "1")
    done = subprocess.run([preloaded.python(), "-c", KILLED, tracking_uri, *steps], capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(steps), done.stderr
    left = {journal.model: aliases(journal) for journal in journals}
    assert left["champion"] == {"champion": "1"}  # the entry is there, the alias where it was
    assert left["previous"] == {"champion": "2"}
    # A dead one's claim is waited for, 3 seconds here, and taken away.
    waiting = [Journal(journal.client, journal.model, lease=3.0) for journal in journals]
    with ThreadPoolExecutor(len(steps)) as pool:
        found = dict(zip(steps, pool.map(get_standing, waiting), strict=True))
    assert found.pop("entry").champion == "1"  # nothing was journalled, and nothing is to be finished
    assert {(now.champion, now.previous) for now in found.values()} == {("2", "1")}
    for journal in journals[1:]:
        kept = journal.records()[-1]
        assert (kept.entry.action, kept.state) == ("promoted", "moved")
        assert journal.client.get_run(kept.run_id).info.status == "FINISHED"
    # And life goes on, over the number that the killed one had claimed.
    journal = Journal(journals[0].client, "entry", lease=3.0)
    assert moved(journal, get_standing(journal), "2").entry.number == 3
    assert find_faults(journal.records()) == []
