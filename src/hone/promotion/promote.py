"""Compare candidate and champion on the same rows, decide, and carry the decision out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import DamagedVersion, DataError, ModelError, PromotionError, PromotionRefused
from hone.promotion import smoke
from hone.promotion.champion import Standing, add_entry, get_standing, move_champion
from hone.promotion.decision import Decision, Judged, log_page, mark_promoted, mark_put_back, tag_version
from hone.promotion.journal import Action, Journal, Record, answering
from hone.registry import integrity
from hone.splits import TEST, TRAIN, VALID
from hone.tracking.aliases import CANDIDATE, CHAMPION, list_aliases
from hone.tracking.client import connect, translate_errors
from hone.tracking.links import load_version_config, load_version_metrics
from hone.tracking.reader import SCHEME, Version, get_version

if TYPE_CHECKING:
    from hone.config.sections import Promotion
    from hone.promotion.contender import Contender
    from hone.promotion.gates import Gate
    from hone.promotion.match import Match
    from hone.promotion.rows import Rows


def open_journal(tracking_uri: str, model: str, artifact_root: str = "") -> Journal:
    """The journal of a registered model; raises ModelError if there is no such model."""
    from mlflow.exceptions import MlflowException

    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        try:
            client.get_registered_model(model)
        except MlflowException as fault:
            if fault.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            names = ", ".join(model_entry.name for model_entry in client.search_registered_models(max_results=20))
            raise ModelError(
                "there is no such registered model",
                where=f"{model} in {tracking_uri}",
                fix=f"There are: {names}." if names else "There is none yet: `hone run CONF` registers one.",
            ) from fault
    return Journal(client, model, artifact_root=artifact_root)


@answering
def decide(
    journal: Journal,
    version: str = "",
    *,
    downloads: Path,
    policy: str = "",
    golden: str = "",
    start: Standing | None = None,
) -> Decision:
    """Compare the version (by default the one with the alias `candidate`) with the champion, on new predictions.

    Both predict the candidate's test rows and the golden set, without rows of the champion's training and validation
    splits, which would favour it. `policy` and `golden` default to the candidate's own configuration, `start` to the
    current aliases. Raises ModelError if a version cannot be loaded or compared, DataError if no rows are left,
    PromotionError if the version is the champion.
    """
    from hone.promotion.contender import load_contender

    client, uri = journal.client, journal.client.tracking_uri
    start = start or get_standing(journal)
    candidate = get_version(uri, f"{SCHEME}{journal.model}/{version or _find_candidate(journal)}")
    if candidate.version == start.champion:
        raise PromotionError(f"version {candidate.version} is the champion", where=journal.model, fix="Name another.")
    settings, columns = load_settings(uri, candidate)
    changed = {name: value for name, value in (("policy", policy), ("golden", golden)) if value}
    settings = settings.model_copy(update=changed)
    integrity.check_files(uri, candidate)
    contenders = {CANDIDATE: load_contender(uri, candidate, downloads)}
    if start.champion:
        champion = get_version(uri, f"{SCHEME}{journal.model}/{start.champion}")
        contenders[CHAMPION] = load_contender(uri, champion, downloads)
    sets, gates = _compare(uri, contenders, settings, columns)
    sets = [replace(judged, comparison=1 + _count_comparisons(journal, judged)) for judged in sets]
    return Decision(
        journal.model,
        candidate.version,
        start,
        _choose_policy(settings, gates),
        settings.test,
        datetime.now(UTC).isoformat(timespec="milliseconds"),
        candidate.run_id,
        str(client.get_run(candidate.run_id).info.experiment_id),
        contenders[CANDIDATE].objective.main_metric,
        sets,
        gates,
        max(1, round(3600 * settings.expires_hours)),
    )


def _count_comparisons(journal: Journal, judged: Judged) -> int:
    """The journal's earlier comparisons on the same file of rows."""
    key = f"{judged.name}/digest"
    return sum(record.entry.figures.get(key) == judged.digest for record in journal.records())


def _choose_policy(settings: Promotion, gates: Sequence[Gate]) -> str:
    """The configured policy; `manual` for `auto` if a gate is inconclusive and a person is to be asked then."""
    asks = settings.inconclusive == "ask" and any(gate.inconclusive for gate in gates)
    return "manual" if asks and settings.policy == "auto" else settings.policy


@answering
def find_promotion(journal: Journal, version: str, *, who: str, downloads: Path) -> Record | None:
    """The promotion of a version (by default the candidate) that is the champion by the last move; None if it is not.

    So a call that was killed after its move can be repeated: what is left of it, the serving test, is done. Raises
    PromotionRefused if that fails.
    """
    start = get_standing(journal)
    last = _find_last_move(journal)
    wanted = version or list_aliases(journal.client, journal.model).get(CANDIDATE, "")
    if not last or last.entry.action != "promoted" or not start.champion == last.entry.to_version == wanted:
        return None
    if last.state != "done":
        confirm_move(journal, last, who, downloads)
    return last


@dataclass(frozen=True)
class Columns:
    """The columns of `evaluation.slices` and `evaluation.groups`."""

    slices: Sequence[str]
    groups: Sequence[str] = ()


def load_settings(tracking_uri: str, version: Version) -> tuple[Promotion, Columns]:
    """The section `promotion`, and the columns of slices and groups, of the version's own configuration.

    The defaults, if its run has no configuration. Raises DamagedVersion if that is not what was logged.
    """
    from pydantic import ValidationError

    from hone.config.sections import Evaluation, Promotion
    from hone.errors import ConfigError

    try:
        config = load_version_config(tracking_uri, version)
    except DamagedVersion:  # no gate that was configured is left out
        raise
    except ModelError:
        config = {}
    try:
        settings = Promotion.model_validate(config.get("promotion") or {})
        evaluation = config.get("evaluation") or {}
        columns = Columns(evaluation.get("slices", Evaluation().slices), evaluation.get("groups", ()))
        return settings, columns
    except (ValidationError, AttributeError) as fault:
        raise ConfigError(str(fault), where=f"promotion, in config.yaml of run {version.run_id}") from None


def log_decision(journal: Journal, decision: Decision) -> str:
    """Log the decision's page to the version's run and tag the version; returns the page's artifact path."""
    with translate_errors(journal.client.tracking_uri):
        tag_version(journal.client, decision, "passed" if decision.passed else "refused")
        return log_page(journal.client, decision)


@answering
def refuse(journal: Journal, decision: Decision, who: str, why: str) -> Record:
    """Tag the version and journal that it does not become the champion."""
    tag_version(journal.client, decision, "refused")
    return _add_entry(journal, decision, "refused", who, why)


@answering
def journal_shadow(journal: Journal, decision: Decision, who: str) -> Record:
    """Tag the version and journal what the policy `shadow` would have done."""
    would = "would be promoted: " if decision.passed else "would be "
    tag_version(journal.client, decision, "shadow")
    return _add_entry(journal, decision, "shadow", who, would + decision.reason)


@answering
def promote_version(
    journal: Journal,
    decision: Decision,
    *,
    who: str,
    why: str,
    downloads: Path,
    between: Callable[[str], object] = lambda _: None,
) -> Record:
    """Make the version the champion: serving test, move, and serving test by the alias.

    Raises PromotionRefused if a gate was not passed or a serving test fails; that is journalled, and the champion stays
    or is put back. Raises ChampionMoved if the champion is no longer the one that the version was compared with.
    """
    if not decision.passed:
        refuse(journal, decision, who, decision.reason)
        raise PromotionRefused(decision.reason, where=f"{decision.model} version {decision.version}")
    with smoke.start_server(journal.client.tracking_uri) as server:
        try:
            expected = load_ready(journal, decision.version, downloads, server)
        except ModelError as fault:
            refuse(journal, decision, who, str(fault))
            raise PromotionRefused(str(fault), where=f"{decision.model} version {decision.version}") from fault
        moved = move_champion(
            journal,
            decision.start,
            decision.version,
            action="promoted",
            who=who,
            why=why or decision.reason,
            figures=decision.figures(),
            previous=decision.champion,
            between=between,
        )
        between("after")
        confirm_serving(journal, moved, who, expected, server, decision)
    return moved


@answering
def rollback(journal: Journal, *, who: str, why: str, downloads: Path, undo: bool = False) -> tuple[Record, bool]:
    """Make the former champion (`previous`) the champion again; with `undo`, reverse the rollback that came last.

    Returns the move, and whether this call made it: where it is the last move already, nothing moves, so that a call
    that was killed can be repeated. Raises PromotionError if there is no former champion or no rollback to undo,
    PromotionRefused if the version fails the serving test.
    """
    start = get_standing(journal)
    action: Action = "rollback undone" if undo else "rolled back"
    last = _find_last_move(journal)
    if last and last.entry.action == action and last.entry.to_version == start.champion:
        if last.state != "done":
            confirm_move(journal, last, who, downloads)
        return last, False
    if undo and not (last and last.entry.action == "rolled back" and last.entry.to_version == start.champion):
        raise PromotionError(
            "the champion's last move was not a rollback", where=journal.model, fix="`hone history` lists the moves."
        )
    if not start.previous:
        raise PromotionError(
            "there is no former champion",
            where=journal.model,
            fix="Promote another version first; `hone history` lists the moves.",
        )
    with smoke.start_server(journal.client.tracking_uri) as server:
        try:
            expected = load_ready(journal, start.previous, downloads, server)
        except ModelError as fault:
            raise PromotionRefused(
                f"version {start.previous} cannot be the champion again: {fault}",
                where=journal.model,
                fix="Promote another: hone promote MODEL --version V.",
            ) from fault
        moved = move_champion(
            journal,
            start,
            start.previous,
            action=action,
            who=who,
            why=why,
            figures={},
            previous=start.champion,
        )
        confirm_serving(journal, moved, who, expected, server)
    return moved, True


def load_ready(journal: Journal, version: str, downloads: Path, server: smoke.Server) -> Contender:
    """The loaded version, after its files are verified and it has passed the serving test; else raises ModelError."""
    from hone.promotion.contender import load_contender

    uri = journal.client.tracking_uri
    model_version = get_version(uri, f"{SCHEME}{journal.model}/{version}")
    integrity.check_files(uri, model_version)
    contender = load_contender(uri, model_version, downloads)
    server.check_answers(model_version.uri, contender.answer)
    return contender


def _find_last_move(journal: Journal) -> Record | None:
    return next((record for record in reversed(journal.records()) if record.entry.moves), None)


def describe_repetition(moved: Record) -> str:
    """That a move was made before, by whom, and what to do if a rollback is to be reversed."""
    entry = moved.entry
    made = f"{entry.action} by {entry.who} at {entry.at[:19].replace('T', ' ')} UTC"
    return made + (". To reverse that, add --undo (`undo` in the form)." if entry.action == "rolled back" else ".")


@answering
def confirm_move(journal: Journal, moved: Record, who: str, downloads: Path) -> None:
    """Do the serving test of a move whose call was killed before it, with the outcomes of `confirm_serving`."""
    with smoke.start_server(journal.client.tracking_uri) as server:
        try:
            expected = load_ready(journal, moved.entry.to_version, downloads, server)
        except ModelError as fault:
            raise _put_back_after(journal, moved, who, fault) from fault
        confirm_serving(journal, moved, who, expected, server)


def confirm_serving(
    journal: Journal,
    moved: Record,
    who: str,
    expected: Contender,
    server: smoke.Server,
    decision: Decision | None = None,
) -> None:
    """Do the serving test of the alias `champion`; if it fails, put the former champion back.

    Raises PromotionRefused in that case. Otherwise a promoted version is tagged, with its `decision` if that is at
    hand, and then the move is done: after a kill in between, it is confirmed and tagged again.
    """
    try:
        server.check_answers(f"{SCHEME}{journal.model}@{CHAMPION}", expected.answer)
    except ModelError as fault:
        raise _put_back_after(journal, moved, who, fault) from fault
    if decision:
        tag_version(journal.client, decision, "promoted")
    elif moved.entry.action == "promoted":
        mark_promoted(journal.client, journal.model, moved.entry.to_version)
    journal.set_state(moved, "done")


def _put_back_after(journal: Journal, moved: Record, who: str, fault: ModelError) -> PromotionRefused:
    put_back(journal, moved, who, str(fault))
    return PromotionRefused(
        f"version {moved.entry.to_version} was put back: {fault}", where=journal.model, fix="See hone history."
    )


@answering
def put_back(journal: Journal, moved: Record, who: str, why: str) -> Record:
    """Undo the move `moved` and journal that; raises ChampionMoved if another move came after it."""
    start = Standing(moved.entry.to_version, moved.entry.previous, moved.entry.number)
    records = journal.records()
    earlier = [record.entry.previous for record in records if record.entry.number < moved.entry.number]
    back = move_champion(
        journal,
        start,
        moved.entry.from_version,
        action="put back",
        who=who,
        why=why,
        figures={},
        previous=earlier[-1] if earlier else "",
    )
    journal.set_state(back, "done")
    journal.set_state(moved, "done")
    if moved.entry.to_version:
        mark_put_back(journal.client, journal.model, moved.entry.to_version, why)
    return back


def _add_entry(journal: Journal, decision: Decision, action: Any, who: str, why: str) -> Record:
    return add_entry(
        journal,
        decision.start,
        action=action,
        who=who,
        why=why,
        from_version=decision.champion,
        to_version=decision.version,
        figures=decision.figures(),
    )


def _find_candidate(journal: Journal) -> str:
    version = list_aliases(journal.client, journal.model).get(CANDIDATE)
    if version is None:
        raise ModelError(f"has no alias {CANDIDATE}", where=journal.model, fix="Name a version: --version V.")
    return version


def _compare(
    uri: str, contenders: dict[str, Contender], settings: Promotion, columns: Columns
) -> tuple[list[Judged], list[Gate]]:
    """The figures on each set of rows, and the gates."""
    from hone.promotion import bias, gates, guards
    from hone.promotion.match import build_match
    from hone.promotion.rows import Rows, find_leaked, load_golden_set, load_split

    candidate = contenders[CANDIDATE]
    ours, objective = candidate.version, candidate.objective
    sets = [Rows(TEST, *reversed(load_split(uri, ours, TEST)))]
    judged_gates: list[Gate] = []
    if settings.golden:
        golden = load_golden_set(settings.golden, objective)
        training, _ = load_split(uri, ours, TRAIN)
        leaked = find_leaked(candidate.rewrite(golden.table), training, objective, settings.near_duplicate)
        judged_gates.append(gates.leakage_gate(golden, leaked))
        sets.append(golden)
    if settings.guards.benchmark_fall is not None:
        judged_gates += guards.judge_benchmarks(load_version_metrics(uri, ours), settings)
    theirs = contenders.get(CHAMPION)
    report = load_version_metrics(uri, ours) if theirs is None or settings.guards.flip_rate is not None else {}
    if theirs is None:
        matches = [build_match(rows, contenders, settings) for rows in sets]
        judged_gates += gates.baseline_gates(report, settings)
        judged_gates += bias.judge_bias(matches, report, settings, columns.groups)
        return [_compute_figures(match, settings) for match in matches], judged_gates
    sets = [rows for rows in _exclude_seen_rows(uri, sets, theirs, settings) if len(rows.table)]
    if not sets:
        raise DataError(
            f"the champion, version {theirs.version.version}, was trained on every test row of version {ours.version}",
            where=ours.uri,
            fix="Judge both on a golden set: promotion.golden.",
        )
    matches = [build_match(rows, contenders, settings) for rows in sets]
    for match in matches:
        judged_gates += [gates.main_metric_gate(match, settings), *guards.judge_guards(match, settings, columns.slices)]
    judged_gates += bias.judge_bias(matches, report, settings, columns.groups)
    latency, size = settings.guards.latency, settings.guards.size
    if latency is not None:
        judged_gates.append(gates.latency_gate(contenders, sets[0], latency, settings.level, settings.seed))
    if size is not None:
        judged_gates.append(gates.size_gate(contenders, size))
    return [_compute_figures(match, settings) for match in matches], judged_gates


def _exclude_seen_rows(uri: str, sets: Sequence[Rows], theirs: Contender, settings: Promotion) -> list[Rows]:
    """The rows without those of the champion's training and validation splits, if these are known."""
    from hone.promotion.rows import exclude_rows, find_leaked, load_split

    for split in (TRAIN, VALID):  # the validation rows chose the epoch whose weights are kept
        try:
            seen, _ = load_split(uri, theirs.version, split)
        except DamagedVersion:
            raise
        except ModelError:  # earlier releases logged no validation rows
            continue
        sets = [
            exclude_rows(rows, find_leaked(theirs.rewrite(rows.table), seen, theirs.objective, settings.near_duplicate))
            for rows in sets
        ]
    return list(sets)


def _compute_figures(match: Match, settings: Promotion) -> Judged:
    """Each version's metrics with intervals on the rows of a match."""
    figures = {name: match.compute_intervals(name, 1 - 2 * settings.level) for name in match.outcomes}
    return Judged(match.rows.name, match.rows.digest, len(match.rows.table), match.rows.left_out, figures)
