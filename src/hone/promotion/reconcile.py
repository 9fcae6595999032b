"""Detects champion moves made by hand or left unfinished; judges, journals and, if configured, reverts them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hone.errors import (
    ChampionMoved,
    ConfigError,
    DamagedVersion,
    DataError,
    ModelError,
    PromotionError,
    PromotionRefused,
)
from hone.promotion.champion import Standing, add_entry, get_standing
from hone.promotion.decision import Decision
from hone.promotion.journal import Journal, Record, answering
from hone.promotion.promote import confirm_move, decide, load_settings, log_decision, put_back
from hone.registry import integrity
from hone.tracking.aliases import CHAMPION, list_aliases
from hone.tracking.client import connect, list_all, translate_errors
from hone.tracking.reader import SCHEME, get_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

BY_HAND = "by hand in MLflow"
WATCH = "watch-registry"
UNCONFIRMED = 900.0  # seconds after which a move without a finished serving test is tested here


def models_with_champion(tracking_uri: str) -> list[str]:
    """The names of Hone's registered models that have a champion or a journal."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        return [
            model.name
            for model in list_all(client.search_registered_models)
            if Journal(client, model.name).has_entries()
            or (CHAMPION in model.aliases and _registered_by_hone(client, model.name))
        ]


def is_moved_by_hand(tracking_uri: str, model: str) -> bool:
    """Whether the champion of a model of Hone's differs from the journal's: what `reconcile` would detect."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        records = Journal(client, model).records()
        champion = list_aliases(client, model).get(CHAMPION, "")
        return champion != _find_journalled_champion(records) and (bool(records) or _registered_by_hone(client, model))


@answering
def reconcile(journal: Journal, *, downloads: Path, enforce: bool = False) -> list[Record]:
    """Make the journal and the alias `champion` of one model agree; returns the entries that were added.

    An unfinished move is finished; one without a finished serving test is tested, and put back if it fails. An alias
    that differs from the last journalled move was moved by hand: the gates judge the move after the fact, it is
    journalled, and put back with `enforce` or if the former champion's configuration says so. A first champion, or one
    whose former version was deleted, stays: there is nothing to put back.
    """
    start = get_standing(journal)
    _confirm_last_move(journal, downloads)
    journalled = _find_journalled_champion(journal.records())
    champion = list_aliases(journal.client, journal.model).get(CHAMPION, "")
    if champion != journalled:
        # ChampionMoved: it was not moved by hand but by a concurrent promotion, which has its own entry.
        with suppress(ChampionMoved):
            _handle_move_by_hand(
                journal, replace(get_standing(journal), champion=journalled), champion, downloads, enforce
            )
    return [record for record in journal.records() if record.entry.number > start.position]


@answering
def list_unannounced(journal: Journal) -> list[Record]:
    """The entries of moves that have not been announced yet, oldest first."""
    return [
        record
        for record in journal.records()
        if record.entry.moves and not record.announced and record.state != "begun"
    ]


def _find_journalled_champion(records: Sequence[Record]) -> str:
    """The champion after the journal's last move; '' if there is none."""
    moves = [record.entry for record in records if record.entry.moves]
    return moves[-1].to_version if moves else ""


def _confirm_last_move(journal: Journal, downloads: Path) -> None:
    """Do the serving test of the last move if the call that made it was killed before the test."""
    moves = [record for record in journal.records() if record.entry.moves]
    if not moves or moves[-1].state != "moved" or moves[-1].seconds < UNCONFIRMED:
        return
    last = moves[-1]
    if list_aliases(journal.client, journal.model).get(CHAMPION, "") != last.entry.to_version:
        return
    with suppress(PromotionRefused):  # the journal says that it was put back
        confirm_move(journal, last, WATCH, downloads)


def _handle_move_by_hand(journal: Journal, start: Standing, champion: str, downloads: Path, enforce: bool) -> None:
    """Judge and journal the move by hand to `champion`; put the champion of `start` back if configured."""
    decision, judgement = _judge_afterwards(journal, start, champion, downloads)
    enforced, unknown = (True, "") if enforce else _is_enforced(journal, start.champion)
    if unknown:
        judgement = f"{judgement}; whether enforce is on is not known, so nothing is put back: {unknown}"
    entry = add_entry(
        journal,
        start,
        action="moved by hand",
        who=BY_HAND,
        why=judgement,
        from_version=start.champion,
        to_version=champion,
        figures=decision.figures() if decision else {},
    )
    if enforced and _exists(journal, start.champion):
        change = f"version {champion} was made the champion" if champion else "the alias was removed"
        rule = "enforce is on: a champion changes by hone promote alone"
        put_back(journal, entry, WATCH, f"{change} by hand, and {rule}; {judgement}")


def _is_enforced(journal: Journal, former: str) -> tuple[bool, str]:
    """Whether the former champion's configuration has `enforce`, and why that is not known if it cannot be read."""
    if not _exists(journal, former):
        return False, ""
    try:
        settings, _ = load_settings(_uri(journal), get_version(_uri(journal), f"{SCHEME}{journal.model}/{former}"))
    except (ConfigError, DamagedVersion) as fault:
        return False, fault.what
    return settings.enforce, ""


def _judge_afterwards(journal: Journal, start: Standing, champion: str, downloads: Path) -> tuple[Decision | None, str]:
    """The gates' decision on a move by hand, logged on the version (None if impossible), and a sentence on it."""
    if not champion:
        return None, "there is no champion left to judge"
    try:
        standing = start if _exists(journal, start.champion) else replace(start, champion="")
        decision = decide(journal, champion, downloads=downloads, start=standing)
        log_decision(journal, decision)
    except (ConfigError, DataError, ModelError, PromotionError) as fault:
        return None, f"the gates could not judge it: {fault}"
    return decision, f"the gates, after the fact: {decision.reason}"


def _exists(journal: Journal, version: str) -> bool:
    if not version:
        return False
    try:
        get_version(_uri(journal), f"{SCHEME}{journal.model}/{version}")
    except ModelError:
        return False
    return True


def _registered_by_hone(client: MlflowClient, model: str) -> bool:
    """Whether Hone registered a version of the model: other models, too, may have the alias `champion`."""
    return any(integrity.TAG in version.tags for version in client.search_model_versions(f"name='{model}'"))


def _uri(journal: Journal) -> str:
    return str(journal.client.tracking_uri)
