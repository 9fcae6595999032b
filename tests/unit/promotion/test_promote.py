"""Two versions that the real line registered: compared, promoted, refused, rolled back, moved by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hone.config.sections import Promotion
from hone.drift.champions import load_current_configs
from hone.errors import ChampionMoved, ConfigError, DamagedVersion, ModelError, PromotionError, PromotionRefused
from hone.promotion import guards, promote, reconcile
from hone.promotion.champion import Standing, get_standing, move_champion
from hone.promotion.decision import Decision, render_markdown, render_page
from hone.promotion.journal import Journal, find_faults
from hone.tracking.aliases import list_aliases
from hone.tracking.links import run_route
from tests.small_line import topic_rows
from tests.tiny_versions import MODEL, Versions

pytestmark = pytest.mark.slow


@pytest.fixture
def journal(versions: Versions) -> Journal:
    """That of the model, whose champion is its weak version 1."""
    found = promote.open_journal(versions.uri, MODEL)
    crown(found, "1")
    return found


def crown(journal: Journal, version: str, **more: Any) -> Any:
    start = get_standing(journal)
    given = {"action": "promoted", "who": "ada", "why": "", "figures": {}, "previous": start.champion}
    moved = move_champion(journal, start, version, **(given | more))
    journal.set_state(moved, "done")
    return moved


def decided(journal: Journal, tmp_path: Path, version: str = "2", **more: Any) -> Decision:
    return promote.decide(journal, version, downloads=tmp_path / "downloads", **more)


def champion(journal: Journal) -> str:
    return list_aliases(journal.client, MODEL).get("champion", "")


def actions(journal: Journal) -> list[str]:
    return [kept.entry.action for kept in journal.records()]


def test_the_better_one_passes_every_gate_and_is_recorded(journal: Journal, tmp_path: Path) -> None:
    decision = decided(journal, tmp_path)
    assert decision.passed, decision.reason
    [judged] = decision.sets
    assert (judged.rows, judged.left_out) == (100, 0)
    assert judged.figures["candidate"]["accuracy"]["value"] > judged.figures["champion"]["accuracy"]["value"] + 0.3
    names = {gate.name for gate in decision.gates}
    assert {"accuracy: better", "slices by length", "F1 by class", "calibration", "latency p95, ratio"} <= names
    place = promote.log_decision(journal, decision)
    assert promotion_tags(journal, "2") == {"hone.promotion.decision": "passed"}
    stored = json.loads(
        Path(journal.client.download_artifacts(decision.run_id, place.replace("html", "json"))).read_text()
    )
    assert (stored["sets"][0]["digest"], len(stored["gates"])) == (judged.digest, len(decision.gates))
    html = Path(journal.client.download_artifacts(decision.run_id, place, str(tmp_path))).read_text()
    assert "accuracy: better" in html and judged.digest in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def promotion_tags(journal: Journal, version: str) -> dict[str, str]:
    tags = journal.client.get_model_version(MODEL, version).tags
    return {name: value for name, value in tags.items() if name.startswith("hone.promotion")}


def test_the_page_of_a_version_has_the_decision(journal: Journal, tmp_path: Path) -> None:
    # As an earlier release left it.
    for name in ("outcome", "gates", "test_digest"):
        journal.client.set_model_version_tag(MODEL, "1", f"hone.promotion.{name}", "old")
    crown(journal, "2")
    decision = decided(journal, tmp_path, "1")
    page = promote.log_decision(journal, decision)
    promote.refuse(journal, decision, "bob", "worse")
    assert promotion_tags(journal, "1") == {"hone.promotion.decision": "refused"}
    description = journal.client.get_model_version(MODEL, "1").description
    assert description.startswith("**")  # the verdict
    section = description.partition("## Promotion")[2].partition("\n## ")[0]
    assert section.strip().startswith("**Refused**")
    assert "[version 2](#/models/topics/versions/2?workflowType=machine_learning)" in section
    assert run_route(decision.experiment_id, decision.run_id, page) in section
    assert section.index("| accuracy: better") < section.index("| yes")  # what refused it comes first
    figures = decision.sets[0].figures
    for name in ("candidate", "champion"):
        assert f"{figures[name]['accuracy']['value']:.4g} [" in section
    assert "## How to use" in description


def test_the_worse_one_is_refused_and_the_champion_stays(journal: Journal, tmp_path: Path) -> None:
    crown(journal, "2")
    decision = decided(journal, tmp_path, "1")
    assert not decision.passed
    with pytest.raises(PromotionRefused, match="accuracy: better"):
        promote.promote_version(journal, decision, who="bob", why="", downloads=tmp_path)
    assert champion(journal) == "2"
    last = journal.records()[-1].entry
    assert (last.action, last.who, last.from_version, last.to_version) == ("refused", "bob", "2", "1")
    assert last.figures["test/candidate/accuracy"] < last.figures["test/champion/accuracy"]
    assert journal.client.get_model_version(MODEL, "1").tags["hone.promotion.decision"] == "refused"


def test_the_champion_is_no_candidate_and_what_is_not_there_is_named(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="version 1 is the champion"):
        decided(journal, tmp_path, "1")
    with pytest.raises(ModelError, match="no such model version"):
        decided(journal, tmp_path, "9")
    with pytest.raises(ModelError, match=f"There are: {MODEL}"):
        promote.open_journal(journal.client.tracking_uri, "nothing")
    assert decided(journal, tmp_path, "").version == "2"  # the alias candidate


def test_a_golden_set_is_judged_on_too_and_one_that_leaked_refuses(
    journal: Journal, versions: Versions, tmp_path: Path
) -> None:
    fresh = topic_rows(tmp_path / "golden.csv", 60, seed=99, label="label")
    decision = decided(journal, tmp_path, golden=str(fresh))
    assert decision.passed, decision.reason
    assert [judged.name for judged in decision.sets] == ["test", "golden"]
    # One training row, in capitals and without its last word: nearly the same is the same.
    lines = fresh.read_text().splitlines()
    text = training_text(journal)
    lines[1] = f"{text.upper()}!,{lines[1].rpartition(',')[2]}"
    fresh.write_text("\n".join(lines) + "\n")
    leaked = decided(journal, tmp_path, golden=str(fresh))
    assert [gate.name for gate in leaked.refused] == ["leakage: rows that were trained on"]
    assert leaked.refused[0].figure == 1
    assert leaked.sets[1].digest != decision.sets[1].digest
    with pytest.raises(ConfigError, match="there is no such file"):
        decided(journal, tmp_path, golden=str(tmp_path / "nothing.csv"))


@pytest.mark.parametrize(
    ("inconclusive", "policy", "unclear", "expected"),
    [
        ("ask", "auto", True, "manual"),
        ("ask", "auto", False, "auto"),
        ("ask", "shadow", True, "shadow"),
        ("pass", "auto", True, "auto"),
    ],
)
def test_a_person_is_asked_where_a_gate_is_unclear_and_nobody_else_would_be(
    inconclusive: str,
    policy: str,
    unclear: bool,
    expected: str,
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Promotion.model_validate({"inconclusive": inconclusive, "policy": policy, "resamples": 200})
    monkeypatch.setattr(promote, "load_settings", lambda *_: (settings, promote.Columns(["length"])))
    judge = guards.judge_guards
    monkeypatch.setattr(
        guards,
        "judge_guards",
        lambda *given: [replace(gate, inconclusive=unclear) for gate in judge(*given)],
    )
    decision = decided(journal, tmp_path)
    assert decision.passed and decision.policy == expected
    assert ("unclear" in render_markdown(decision)) == unclear


def training_text(journal: Journal) -> str:
    import pyarrow.parquet as pq

    run_id = journal.client.get_model_version(MODEL, "2").run_id
    return str(pq.read_table(journal.client.download_artifacts(run_id, "splits/train.parquet"))["text"][0].as_py())


@pytest.mark.parametrize("split", ["train", "valid"])
def test_rows_that_the_champion_saw_in_training_do_not_speak_for_it(
    journal: Journal, versions: Versions, tmp_path: Path, split: str
) -> None:
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    [seen_file] = (versions.root / "hone" / "store" / "validate").glob(f"*/{split}.parquet")
    seen = pq.read_table(seen_file, columns=["text", "label"]).slice(0, 20)
    fresh = csv.read_csv(topic_rows(tmp_path / "fresh.csv", 60, seed=99, label="label")).select(["text", "label"])
    csv.write_csv(pa.concat_tables([fresh, seen]), tmp_path / "golden.csv")
    _, judged = decided(journal, tmp_path, golden=str(tmp_path / "golden.csv")).sets
    assert (judged.rows, judged.left_out) == (60, 20)


@contextmanager
def damaged(journal: Journal, version: str, path: str) -> Iterator[None]:
    """Within the block, a byte of the file `path` of the version's run is another one."""
    run = journal.client.get_run(journal.client.get_model_version(MODEL, version).run_id)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / path
    whole = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    yield
    file.write_bytes(whole)


@pytest.mark.parametrize("path", ["config.yaml", "splits/test.parquet"])
def test_a_candidate_is_not_judged_by_damaged_files(journal: Journal, tmp_path: Path, path: str) -> None:
    with damaged(journal, "2", path), pytest.raises(DamagedVersion, match=path):
        decided(journal, tmp_path)
    assert decided(journal, tmp_path).passed


def test_a_first_champion_is_not_judged_by_damaged_figures(versions: Versions, tmp_path: Path) -> None:
    journal = promote.open_journal(versions.uri, MODEL)
    with damaged(journal, "2", "metrics.json"), pytest.raises(DamagedVersion, match=r"metrics\.json"):
        decided(journal, tmp_path)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_champion_with_damaged_rows_is_not_compared_with(journal: Journal, tmp_path: Path, split: str) -> None:
    with damaged(journal, "1", f"splits/{split}.parquet"), pytest.raises(DamagedVersion, match=split):
        decided(journal, tmp_path)


def test_a_move_by_hand_is_journalled_although_the_former_configuration_is_damaged(
    journal: Journal, tmp_path: Path
) -> None:
    journal.client.set_registered_model_alias(MODEL, "champion", "2")
    with damaged(journal, "1", "config.yaml"):
        [moved] = reconcile.reconcile(journal, downloads=tmp_path)
    assert moved.entry.action == "moved by hand" and champion(journal) == "2"
    assert "whether enforce is on is not known" in moved.entry.why and "config.yaml" in moved.entry.why


def test_a_damaged_configuration_hides_no_other_champion(journal: Journal, versions: Versions, tmp_path: Path) -> None:
    client, version = journal.client, journal.client.get_model_version(MODEL, "2")
    client.create_registered_model("other")
    client.create_model_version("other", "/nowhere", version.run_id, tags=version.tags)
    client.set_registered_model_alias("other", "champion", "1")
    with damaged(journal, "1", "config.yaml"):
        configs, faults = load_current_configs(versions.uri)
    assert [version.name for version, _ in configs] == ["other"]
    assert [fault.where for fault in faults] == [f"models:/{MODEL}/1"]
    configs, faults = load_current_configs(versions.uri)
    assert [version.name for version, _ in configs] == ["other", MODEL] and not faults


def test_comparisons_on_the_same_rows_are_counted(journal: Journal, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        decision = decided(journal, tmp_path, policy="shadow")
        assert decision.sets[0].comparison == number
        promote.journal_shadow(journal, decision, "ada")
    assert journal.records()[-1].entry.figures["test/comparison"] == 3
    assert "comparison 3 on these rows" in render_markdown(decision) and "3 on these rows" in render_page(decision)


def test_shadow_decides_and_records_and_moves_nothing(journal: Journal, tmp_path: Path) -> None:
    decision = decided(journal, tmp_path, policy="shadow")
    assert decision.policy == "shadow"
    promote.journal_shadow(journal, decision, "bob")
    assert champion(journal) == "1"
    assert actions(journal) == ["promoted", "shadow"]
    assert "would be promoted" in journal.records()[-1].entry.why


def test_a_decision_is_void_once_another_was_promoted(journal: Journal, tmp_path: Path) -> None:
    decision = decided(journal, tmp_path)
    crown(journal, "2", who="eve")
    crown(journal, "1", who="eve")
    with pytest.raises(ChampionMoved, match="eve promoted"):
        promote.move_champion(  # type: ignore[attr-defined]
            journal, decision.start, "2", action="promoted", who="bob", why="", figures={}, previous="1"
        )
    assert champion(journal) == "1"


@pytest.fixture
def gone_after(versions: Versions) -> Iterator[Any]:
    """`gone_after(step)` takes the files of version 2 away when a move has come to that step; they come back."""
    from hone.tracking.reader import get_version

    place = Path(get_version(versions.uri, f"models:/{MODEL}/2").location.removeprefix("file://"))
    hidden = place.with_name(place.name + "-hidden")

    def when(step: str) -> Any:
        return lambda name: place.rename(hidden) if name == step else None

    yield when
    if hidden.exists():
        hidden.rename(place)


def test_a_version_that_does_not_answer_as_champion_is_put_back(
    journal: Journal, tmp_path: Path, gone_after: Any
) -> None:
    decision = decided(journal, tmp_path)
    with pytest.raises(PromotionRefused, match="was put back"):
        promote.promote_version(journal, decision, who="bob", why="", downloads=tmp_path, between=gone_after("after"))
    assert list_aliases(journal.client, MODEL) == {"candidate": "2", "champion": "1"}
    assert actions(journal) == ["promoted", "promoted", "put back"]
    assert "failed the serving test" in journal.records()[-1].entry.why
    assert promotion_tags(journal, "2") == {"hone.promotion.decision": "put back"}
    description = journal.client.get_model_version(MODEL, "2").description
    assert "**Put back**: " in description and "failed the serving test" in description
    assert find_faults(journal.records()) == []


def test_a_rollback_needs_a_former_champion(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="no former champion"):
        promote.rollback(journal, who="bob", why="", downloads=tmp_path)


def test_a_promotion_that_was_killed_after_its_move_is_found_again(journal: Journal, tmp_path: Path) -> None:
    def find(version: str = "") -> Any:
        return promote.find_promotion(journal, version, who="bob", downloads=tmp_path)

    assert find() is None  # version 1 is the champion, version 2 the candidate
    assert find("1").entry.to_version == "1"
    moved = crown(journal, "2")
    journal.set_state(moved, "moved")
    assert find("1") is None
    assert find().entry == moved.entry
    assert journal.records()[-1].state == "done"
    promote.rollback(journal, who="bob", why="worse", downloads=tmp_path)
    assert find() is None and find("1") is None


@pytest.mark.parametrize("killed_at", ["serving test", "last mark"])
def test_a_promotion_that_was_killed_says_promoted_once_it_is_repeated(
    killed_at: str, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = decided(journal, tmp_path)
    promote.log_decision(journal, decision)
    set_state = Journal.set_state

    def kill(name: str) -> None:
        if name == "after" and killed_at == "serving test":
            raise KeyboardInterrupt

    def kill_at_end(self: Journal, record: Any, state: Any) -> None:
        if state == "done" and killed_at == "last mark":
            raise KeyboardInterrupt
        set_state(self, record, state)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "set_state", kill_at_end)
        with pytest.raises(KeyboardInterrupt):
            promote.promote_version(journal, decision, who="bob", why="", downloads=tmp_path, between=kill)
    assert champion(journal) == "2"
    repeated = promote.find_promotion(journal, "", who="bob", downloads=tmp_path)
    assert repeated and repeated.entry.to_version == "2"
    assert promotion_tags(journal, "2") == {"hone.promotion.decision": "promoted"}
    description = journal.client.get_model_version(MODEL, "2").description
    assert "**Promoted**, compared with" in description and "**All gates passed**" not in description
    assert journal.records()[-1].state == "done"


def test_a_repeated_rollback_moves_nothing_until_it_is_undone(journal: Journal, tmp_path: Path) -> None:
    crown(journal, "2")

    def roll_back(undo: bool = False) -> tuple[Any, bool]:
        moved, moved_now = promote.rollback(journal, who="bob", why="worse", downloads=tmp_path, undo=undo)
        assert champion(journal) == moved.entry.to_version
        return moved, moved_now

    with pytest.raises(PromotionError, match="last move was not a rollback"):
        roll_back(undo=True)
    first, moved_now = roll_back()
    assert (first.entry.to_version, moved_now) == ("1", True)
    # The call was killed before it had confirmed the serving test, and is repeated.
    journal.set_state(first, "moved")
    repeated, moved_now = roll_back()
    assert (repeated.entry, moved_now) == (first.entry, False)
    assert journal.records()[-1].state == "done"
    undone, moved_now = roll_back(undo=True)
    assert (undone.entry.action, undone.entry.to_version, moved_now) == ("rollback undone", "2", True)
    assert list_aliases(journal.client, MODEL)["previous"] == "1"
    assert roll_back(undo=True)[1] is False
    assert roll_back()[0].entry.to_version == "1"
    assert actions(journal)[-3:] == ["rolled back", "rollback undone", "rolled back"]
    assert find_faults(journal.records()) == []
    # After a move by hand there is no rollback to undo.
    journal.client.set_registered_model_alias(MODEL, "champion", "2")
    with pytest.raises(PromotionError, match="last move was not a rollback"):
        roll_back(undo=True)


def test_a_move_by_hand_is_noticed_judged_and_left(journal: Journal, tmp_path: Path) -> None:
    assert reconcile.reconcile(journal, downloads=tmp_path) == []
    journal.client.set_registered_model_alias(MODEL, "champion", "2")
    [kept] = reconcile.reconcile(journal, downloads=tmp_path)
    assert (kept.entry.action, kept.entry.from_version, kept.entry.to_version) == ("moved by hand", "1", "2")
    assert "all gates passed" in kept.entry.why
    assert kept.entry.figures["test/candidate/accuracy"] > 0.9
    assert list_aliases(journal.client, MODEL)["previous"] == "1"  # so that it can be rolled back
    assert reconcile.reconcile(journal, downloads=tmp_path) == []
    assert journal.client.get_model_version(MODEL, "2").tags["hone.promotion.decision"] == "passed"


def test_with_enforce_it_is_put_back_with_the_reason(journal: Journal, tmp_path: Path) -> None:
    crown(journal, "2")
    journal.client.set_registered_model_alias(MODEL, "champion", "1")
    hand, back = reconcile.reconcile(journal, downloads=tmp_path, enforce=True)
    assert champion(journal) == "2"
    assert (hand.entry.action, back.entry.action) == ("moved by hand", "put back")
    assert "enforce is on" in back.entry.why and "refused by test: accuracy" in back.entry.why
    journal.client.delete_registered_model_alias(MODEL, "champion")
    reconcile.reconcile(journal, downloads=tmp_path, enforce=True)
    assert champion(journal) == "2"
    assert [kept.entry.action for kept in reconcile.list_unannounced(journal)].count("put back") == 2


def test_a_first_champion_that_was_set_by_hand_stays(versions: Versions, tmp_path: Path) -> None:
    journal = promote.open_journal(versions.uri, MODEL)
    journal.client.set_registered_model_alias(MODEL, "champion", "1")
    assert reconcile.models_with_champion(versions.uri) == [MODEL]
    [kept] = reconcile.reconcile(journal, downloads=tmp_path, enforce=True)
    assert (kept.entry.from_version, kept.entry.to_version) == ("", "1")
    assert champion(journal) == "1"


def test_a_champion_that_another_team_made_is_not_ours(journal: Journal, tmp_path: Path) -> None:
    journal.client.create_registered_model("theirs")
    journal.client.create_model_version("theirs", source="/nowhere")
    journal.client.set_registered_model_alias("theirs", "champion", "1")
    uri = str(journal.client.tracking_uri)
    assert reconcile.models_with_champion(uri) == [MODEL]
    assert [reconcile.is_moved_by_hand(uri, model) for model in (MODEL, "theirs")] == [False, False]
    # A version that Hone did not make, as the champion of a model of ours.
    journal.client.create_model_version(MODEL, source="/nowhere")
    journal.client.set_registered_model_alias(MODEL, "champion", "3")
    assert reconcile.is_moved_by_hand(uri, MODEL)
    [kept] = reconcile.reconcile(journal, downloads=tmp_path)
    assert "the gates could not judge it" in kept.entry.why
    assert not reconcile.is_moved_by_hand(uri, MODEL)


def test_a_move_whose_serving_test_never_ended_is_tested(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "UNCONFIRMED", 0.0)
    journal.set_state(crown(journal, "2"), "moved")
    assert reconcile.reconcile(journal, downloads=tmp_path) == []
    assert journal.records()[-1].state == "done"
    # One that does not answer: its files are not there.
    journal.client.create_model_version(MODEL, source="/nowhere")
    journal.set_state(crown(journal, "3"), "moved")
    [back] = reconcile.reconcile(journal, downloads=tmp_path)
    assert (back.entry.action, champion(journal)) == ("put back", "2")
    assert get_standing(journal) == Standing("2", "1", back.entry.number)
