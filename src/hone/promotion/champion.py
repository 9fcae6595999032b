"""Moves the aliases `champion` and `previous`: only if nobody moved them since they were read, and journalled.

The steps of a move, under a claim of the journal (`hone.promotion.journal`), which serializes concurrent moves:

1. the journal's entry is written, with the state `begun`
2. `champion` is pointed to the new version
3. `previous` is pointed to the former one
4. the entry's figures and file are logged, its run ends, its state becomes `moved`
5. the new champion is given the serving test (`hone.promotion.smoke`); its state becomes `done`, or it is put back

After a kill before 1 nothing has happened. After a kill between 1 and 4 the next call for this model, or `reconcile`,
repeats steps 2 to 4 (`finish_moves`), so that a journalled move is completed. After a kill between 4 and 5 `reconcile`
does step 5. If someone moved the alias by hand between 1 and 2, that move stays, and `reconcile` journals it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hone.errors import ChampionMoved
from hone.promotion.journal import Action, Claim, Journal, Record, check_not_moved
from hone.tracking.aliases import CHAMPION, PREVIOUS, list_aliases


@dataclass(frozen=True)
class Standing:
    """The versions of both aliases ('' for none), and the number of the journal's last entry."""

    champion: str
    previous: str
    position: int


def get_standing(journal: Journal) -> Standing:
    """The current versions of the aliases; finishes an unfinished move first."""
    records = journal.records()
    if any(record.state == "begun" for record in records):
        with journal.claim() as claim:
            finish_moves(journal, claim)
        records = journal.records()
    aliases = list_aliases(journal.client, journal.model)
    position = records[-1].entry.number if records else 0
    return Standing(aliases.get(CHAMPION, ""), aliases.get(PREVIOUS, ""), position)


def move_champion(
    journal: Journal,
    start: Standing,
    to: str,
    *,
    action: Action,
    who: str,
    why: str,
    figures: Mapping[str, Any],
    previous: str,
    between: Callable[[str], object] = lambda _: None,
) -> Record:
    """Point `champion` to version `to` ('' for none) and `previous` to `previous`, if nothing has moved since `start`.

    Raises ChampionMoved if another move was journalled or the alias was moved by hand. `between` is called with a name
    before each step, for tests that end the process there.
    """
    check_not_moved(journal.records(), start.position)
    with journal.claim() as claim:
        finish_moves(journal, claim)
        check_not_moved(journal.records(), start.position)
        champion = list_aliases(journal.client, journal.model).get(CHAMPION, "")
        if champion != start.champion:
            raise ChampionMoved(
                f"the champion is version {champion or 'none'} now, and was {start.champion or 'none'} when this began:"
                " it was moved by hand",
                where=journal.model,
                fix="Nothing was moved. Call again.",
            )
        between("entry")
        record = journal.write(
            claim,
            who=who,
            action=action,
            from_version=start.champion,
            to_version=to,
            why=why,
            figures=figures,
            previous=previous,
        )
        between("champion")
        _complete_move(journal, record, claim, between)
    return record


def add_entry(
    journal: Journal,
    start: Standing,
    *,
    action: Action,
    who: str,
    why: str,
    from_version: str,
    to_version: str,
    figures: Mapping[str, Any],
) -> Record:
    """Journal an action without a move (refused, shadow), or a move that was already made by hand.

    For a move by hand, `previous` is pointed to the former champion, and ChampionMoved is raised if another move was
    journalled since `start`.
    """
    by_hand = action == "moved by hand"
    with journal.claim() as claim:
        finish_moves(journal, claim)
        if by_hand:
            check_not_moved(journal.records(), start.position)
            if from_version:
                _point_alias(journal, PREVIOUS, from_version)
        record = journal.write(
            claim,
            who=who,
            action=action,
            from_version=from_version,
            to_version=to_version,
            why=why,
            figures=figures,
            previous=list_aliases(journal.client, journal.model).get(PREVIOUS, ""),
        )
        if by_hand:
            journal.publish(record)
            journal.set_state(record, "done")
    return record


def finish_moves(journal: Journal, claim: Claim) -> list[Record]:
    """Finish the move of a call that was killed; returns the moves that were finished."""
    records = journal.records()
    unfinished = [record for record in records if record.state == "begun"]
    for record in unfinished:
        is_last_move = not any(other.entry.moves and other.entry.number > record.entry.number for other in records)
        if is_last_move and record.entry.action != "moved by hand":
            _complete_move(journal, record, claim)
        else:
            journal.publish(record)
            journal.set_state(record, "done")
    return unfinished


def _complete_move(
    journal: Journal, record: Record, claim: Claim, between: Callable[[str], object] = lambda _: None
) -> None:
    """Do steps 2 to 4, except those that are already done."""
    entry, aliases = record.entry, list_aliases(journal.client, journal.model)
    if aliases.get(CHAMPION, "") == entry.from_version:
        claim.check_time()
        _point_alias(journal, CHAMPION, entry.to_version)
        aliases[CHAMPION] = entry.to_version
    between("previous")
    if aliases.get(CHAMPION, "") == entry.to_version and aliases.get(PREVIOUS, "") != entry.previous:
        claim.check_time()
        _point_alias(journal, PREVIOUS, entry.previous)
    between("state")
    journal.publish(record)
    journal.set_state(record, "moved")


def _point_alias(journal: Journal, alias: str, version: str) -> None:
    """Point `alias` to `version`; delete the alias if `version` is '' or, for `previous`, was deleted."""
    from mlflow.exceptions import MlflowException

    if version:
        try:
            journal.client.set_registered_model_alias(journal.model, alias, version)
            return
        except MlflowException as fault:
            if alias == CHAMPION or fault.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    journal.client.delete_registered_model_alias(journal.model, alias)
