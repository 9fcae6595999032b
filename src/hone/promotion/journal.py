"""The journal of a model's champion: who moved it, when, from and to which version, why, and the figures.

It is stored in MLflow: one run for each entry, in the experiment `NAME journal`. Entries are only added, and each has
the digest of the one before, so that changed and missing entries are detected (`find_faults`).

To add an entry, a process first claims its number. MLflow has no conditional change of an alias, but the names of its
experiments are unique in its database, including those of deleted ones: a number is claimed by creating the experiment
`hone journal/NAME/000007`, in which only one process succeeds, on any host and with any back end, and released by
deleting it. A claim older than `LEASE` seconds belongs to a process that was killed: the next one removes it. A holder
acts only in the first half of that time (`Claim.check_time`): the second half is for calls that are in progress.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

from hone.errors import ChampionMoved, ServiceError, StoreError
from hone.store.digests import digest_of
from hone.tracking.client import get_or_create_experiment, list_all, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Action = Literal["promoted", "rolled back", "rollback undone", "moved by hand", "put back", "refused", "shadow"]
State = Literal["begun", "moved", "done"]

MOVES: tuple[Action, ...] = ("promoted", "rolled back", "rollback undone", "moved by hand", "put back")
LEASE = 60.0  # seconds; a holder needs a dozen calls, of 10 to 45 ms each
POLL = 0.1  # seconds between two checks of another process's claim
ENTRY, DIGEST, NUMBER, STATE, ANNOUNCED = (
    f"hone.journal.{name}" for name in ("entry", "digest", "number", "state", "announced")
)
# What an entry says is in its run twice; nothing else says what was decided.
REPAIR = f"Set {ENTRY} to the text of the run's file entry.json, and {STATE} to done; or restore MLflow from a backup."
MAX_WHY = 1000  # characters
MAX_FIGURES = 6000  # characters as JSON: MLflow silently cuts a tag at 8000


@dataclass(frozen=True)
class Entry:
    """One line of the journal. Versions are numbers, '' for none; `at` is UTC in ISO 8601.

    `previous` is the version of the alias `previous` after the entry, `before` the digest of the preceding entry.
    """

    number: int
    at: str
    who: str
    action: Action
    from_version: str
    to_version: str
    why: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    previous: str = ""
    before: str = ""

    @property
    def moves(self) -> bool:
        """Whether the entry moves the champion."""
        return self.action in MOVES

    @property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON."""
        return digest_of(asdict(self))


@dataclass(frozen=True)
class Record:
    """An entry as stored in MLflow: its run, the state of its move, and whether it was announced.

    `digest` is the one stored when the entry was written, `seconds` the entry's age.
    """

    entry: Entry
    run_id: str
    state: State
    announced: bool
    digest: str
    seconds: float


def describe_move(model: str, entry: Entry) -> str:
    """`demo: version 2 is the champion (was 1), promoted by Ada`."""
    again = " again" if entry.action in ("rolled back", "rollback undone", "put back") else ""
    champion = (
        f"version {entry.to_version} is the champion{again}" if entry.to_version else "no version is the champion"
    )
    former = f"was {entry.from_version}" if entry.from_version else "the first"
    author = "in MLflow" if entry.action == "moved by hand" else f"by {entry.who}"
    return f"{model}: {champion} ({former}), {entry.action} {author}"


class Claim:
    """The right to write the entry `number` and to make the move that it records."""

    def __init__(self, number: int, experiment: str, lease: float) -> None:
        self.number, self.experiment = number, experiment
        self._until = time.monotonic() + lease / 2

    def check_time(self) -> None:
        """Raise ServiceError if the claim is so old that another process may take it over."""
        if time.monotonic() > self._until:
            raise ServiceError(
                "this call took so long that another one may be moving the champion",
                where=f"entry {self.number} of the journal",
                fix="Call again: the unfinished move is completed then, and hone history shows it.",
            )


@dataclass(frozen=True)
class Journal:
    """The journal of the registered model `model`."""

    client: MlflowClient
    model: str
    lease: float = LEASE
    artifact_root: str = ""

    @property
    def experiment(self) -> str:
        """The name of the experiment with the entries."""
        return f"{self.model} journal"

    def records(self) -> list[Record]:
        """All entries, oldest first. Raises StoreError if one cannot be read: nothing is decided without it."""
        records, faults = self.read_entries()
        if faults:
            raise StoreError("; ".join(faults), where=f"{self.model} journal", fix=REPAIR)
        return records

    def read_entries(self) -> tuple[list[Record], list[str]]:
        """The entries that can be read, oldest first, and a line for each of the others."""
        records, faults = [], []
        for run in self._list_runs():
            try:
                records.append(_read_record(run))
            except (ValueError, TypeError, RecursionError):
                number, run_id = run.data.tags.get(NUMBER, "?"), run.info.run_id
                faults.append(f"entry {number} cannot be read: the tag {ENTRY} or {STATE} of MLflow run {run_id}")
        return sorted(records, key=lambda record: record.entry.number), faults

    def has_entries(self) -> bool:
        """Whether there is an entry, readable or not."""
        return bool(self._list_runs())

    def _list_runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        runs = list_all(partial(self.client.search_runs, [experiment.experiment_id], max_results=1000))
        return [run for run in runs if ENTRY in run.data.tags]

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """Claim the next number for the block; waits up to `lease` seconds for another process's claim."""
        number, experiment = 0, None
        while experiment is None:
            last = max((record.entry.number for record in self.records()), default=0)
            if last > number:
                self._wait_for_release(last)  # the move of the last entry may still be in progress
            number = max(number, last) + 1
            experiment = self._try_claim(number)
            if experiment is None:
                self._wait_for_release(number)
        try:
            yield Claim(number, experiment, self.lease)
        finally:
            self._release(experiment)

    def write(
        self,
        claim: Claim,
        *,
        who: str,
        action: Action,
        from_version: str,
        to_version: str,
        why: str,
        figures: Mapping[str, Any],
        previous: str,
    ) -> Record:
        """Add the entry with the number of `claim`. A move starts with the state `begun`; see `set_state`."""
        records = self.records()
        entry = Entry(
            number=claim.number,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            who=who,
            action=action,
            from_version=from_version,
            to_version=to_version,
            why=why[:MAX_WHY],
            figures=_truncate_figures(figures),
            previous=previous,
            before=records[-1].entry.digest if records else "",
        )
        claim.check_time()
        run = self.client.create_run(
            get_or_create_experiment(self.client, self.experiment, self.artifact_root),
            run_name=f"{entry.number:06} {action} {from_version or '–'} to {to_version or '–'}",
            tags={
                ENTRY: json.dumps(asdict(entry), ensure_ascii=False),
                DIGEST: entry.digest,
                NUMBER: str(entry.number),
                STATE: "begun" if entry.moves else "done",
                "hone.journal.action": action,
                "hone.journal.who": who,
                "mlflow.note.content": entry.why,
            },
        )
        record = _read_record(run)
        if not entry.moves:
            self.publish(record)
        return record

    def set_state(self, record: Record, state: State) -> None:
        """Store the state of the move of `record`."""
        self.client.set_tag(record.run_id, STATE, state)

    def publish(self, record: Record) -> None:
        """Log the entry's figures as metrics and the entry as a file, and end its run."""
        from mlflow.entities import Metric

        timestamp = int(time.time() * 1000)
        numbers = {
            _clean_metric_name(name): float(value)
            for name, value in record.entry.figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.client.log_batch(
            record.run_id, metrics=[Metric(name, value, timestamp, 0) for name, value in numbers.items()]
        )
        self.client.log_text(
            record.run_id, json.dumps(asdict(record.entry), ensure_ascii=False, indent=1), "entry.json"
        )
        self.client.set_terminated(record.run_id)

    def mark_announced(self, record: Record) -> None:
        """Mark the entry as announced."""
        self.client.set_tag(record.run_id, ANNOUNCED, "true")

    def _try_claim(self, number: int) -> str | None:
        """The id of the experiment that claims `number`; None if another process has or had the claim."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.create_experiment(self._name(number)))
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return None

    def _wait_for_release(self, number: int) -> None:
        """Return when the claim of `number` is released; after `lease` seconds remove it."""
        deadline = time.monotonic() + self.lease
        while True:
            experiment = self.client.get_experiment_by_name(self._name(number))
            if experiment is None or experiment.lifecycle_stage == "deleted":
                return
            if time.monotonic() > deadline:
                self._release(str(experiment.experiment_id))
                return
            time.sleep(POLL)

    def _release(self, experiment: str) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # another process has removed it
            self.client.delete_experiment(experiment)

    def _name(self, number: int) -> str:
        return f"hone journal/{self.model}/{number:06}"


P = ParamSpec("P")
T = TypeVar("T")


def answering(function: Callable[Concatenate[Journal, P], T]) -> Callable[Concatenate[Journal, P], T]:
    """A function of a journal that raises the errors of `translate_errors` where MLflow does not answer."""

    @wraps(function)
    def call(journal: Journal, /, *arguments: P.args, **options: P.kwargs) -> T:
        with translate_errors(journal.client.tracking_uri):
            return function(journal, *arguments, **options)

    return call


def check_not_moved(records: Sequence[Record], position: int) -> None:
    """Raise ChampionMoved if a move was journalled after the entry with the number `position`."""
    moves = [record.entry for record in records if record.entry.moves and record.entry.number > position]
    if moves:
        last = moves[-1]
        raise ChampionMoved(
            f"someone else was first: {last.who} {last.action} version {last.to_version or 'none'} at {last.at}",
            where=f"entry {last.number} of the journal",
            fix="Nothing was moved. Compare with the new champion: call again.",
        )


def find_faults(records: Sequence[Record]) -> list[str]:
    """Faults of the chain: changed entries, and gaps of deleted ones; empty if it is intact."""
    faults: list[str] = []
    preceding: Record | None = None
    for record in records:
        entry, expected_digest = record.entry, preceding.entry.digest if preceding else ""
        if entry.digest != record.digest:
            faults.append(f"entry {entry.number} is not what was written (digest {record.digest[:12]})")
        if entry.before != expected_digest and not (preceding and entry.before == preceding.digest):
            after = f"entry {preceding.entry.number}" if preceding else "the beginning"
            faults.append(f"entry {entry.number} does not follow {after}: what was between them is gone or was changed")
        preceding = record
    return faults


def _read_record(run: Run) -> Record:
    """The entry that a run holds. Raises ValueError or TypeError if it is not one."""
    tags = run.data.tags
    state, entry = tags.get(STATE, "done"), Entry(**json.loads(tags[ENTRY]))
    if not isinstance(entry.number, int) or entry.action not in get_args(Action) or state not in get_args(State):
        raise ValueError(f"entry {entry.number}, {entry.action}, {state}")
    return Record(
        entry,
        str(run.info.run_id),
        state,
        tags.get(ANNOUNCED) == "true",
        tags.get(DIGEST, ""),
        time.time() - run.info.start_time / 1000,
    )


def _clean_metric_name(name: str) -> str:
    """The figure's name with the characters that MLflow accepts in a metric's name."""
    return re.sub(r"[^\w./: -]", " ", name, flags=re.ASCII).strip()[:200] or "figure"


def _truncate_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures, without the last ones if they exceed MAX_FIGURES."""
    shortened: dict[str, Any] = {}
    for name, value in figures.items():
        if len(json.dumps(shortened | {name: value}, ensure_ascii=True)) > MAX_FIGURES:
            return shortened | {"left out": len(figures) - len(shortened)}
        shortened[name] = value
    return shortened
