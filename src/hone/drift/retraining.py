"""Whether there is anything to train on anew: a source's rows against those that a version was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np

from hone.config.file import parse_config
from hone.config.sections import RunConfig
from hone.errors import ConfigError, ModelError
from hone.objectives import OBJECTIVES
from hone.registry.reference import FOLDER, HASHES, row_hashes, rows_digest
from hone.store.artifact import Artifact
from hone.tracking.links import current, fetch, versions_with
from hone.tracking.reader import Version

Decision = Literal["train", "nothing new", "too few new rows"]
STEPS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}
MOST_DATES = 1000


@dataclass(frozen=True)
class Look:
    """What a look at the source says: what to do, why, and how many rows there are and are new by content."""

    decision: Decision
    why: str
    rows: int
    new: int


def look(config: RunConfig, rows: Artifact, tracking_uri: str, min_new_rows: int) -> Look:
    """Compare the ingested `rows` with those of the model's champion, or of its newest version where none is.

    A row is new if its content is not among those rows, wherever it stands. Raises ServiceError.
    """
    hashes = hashes_of(config, rows)
    version = current(tracking_uri, config.registration.model or config.name)
    if version is None:
        return Look("train", "the model has no version yet", len(hashes), len(hashes))
    if version.tags.get("hone.rows_digest") == rows_digest(hashes):
        why = f"the source's rows are those that version {version.version} was trained on"
        return Look("nothing new", why, len(hashes), 0)
    before = _hashes_of_version(version, tracking_uri)
    if before is None:
        return Look("train", f"version {version.version} does not say what its rows were", len(hashes), len(hashes))
    return _judged(hashes, before, min_new_rows, f"version {version.version}")


def look_back(config: RunConfig, rows: Artifact, tracking_uri: str, min_new_rows: int, before: Artifact | None) -> Look:
    """The same for rows as of an earlier date: against any version made from just these rows, and those of `before`.

    `before` are the rows last trained on in a range of dates, None at its start.
    """
    hashes = hashes_of(config, rows)
    model = config.registration.model or config.name
    known = versions_with(tracking_uri, model, "hone.rows_digest", rows_digest(hashes))
    if known:
        return Look("nothing new", f"version {known[0]} was trained on just these rows", len(hashes), 0)
    if before is None:
        return Look("train", "no version was trained on these rows", len(hashes), len(hashes))
    return _judged(hashes, hashes_of(config, before), min_new_rows, "the date before")


def hashes_of(config: RunConfig, rows: Artifact) -> np.ndarray:
    """A hash of each ingested row's content, sorted: uint64."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = OBJECTIVES[config.objective.kind].columns
    batches = pq.ParquetFile(rows.path / "rows.parquet").iter_batches(columns=list(columns))
    found = [value for batch in batches for value in row_hashes(pa.Table.from_batches([batch]), columns)]
    return np.sort(np.array(found, np.uint64))


def as_of(config: RunConfig, moment: date | datetime) -> RunConfig:
    """The configuration as of an earlier moment; raises ConfigError where its source cannot be read so."""
    tree = config.model_dump(mode="json")
    tree["ingest"]["as_of"] = moment.isoformat()
    return parse_config(tree, config.name)


def dates(
    first: date | datetime | None, last: date | datetime | None, step: Literal["day", "week"]
) -> Sequence[date | None]:
    """The dates from `first` to `last`, both among them where the steps meet it; `first` alone without a last.

    Without a first it is [None]: now. Raises ConfigError for a last without a first, where there are none, where only
    one is a moment of a day, or for more than 1,000.
    """
    if first is None and last is not None:
        raise ConfigError("is the end of a range without a beginning", where=f"until {last}", fix="Give as_of too.")
    if first is None or last is None:
        return [first]
    if isinstance(first, datetime) != isinstance(last, datetime):
        raise ConfigError("are a date and a moment", where="as_of and until", fix="Give two dates, or two moments.")
    found: list[date | None] = []
    at = first
    while at <= last and len(found) <= MOST_DATES:
        found.append(at)
        at += STEPS[step]
    if not found or len(found) > MOST_DATES:
        what = "ends before it begins" if not found else f"has more than {MOST_DATES:,} dates"
        raise ConfigError(f"the range of dates {what}", where=f"as_of {first}, until {last}", fix="Mend the dates.")
    return found


def _judged(hashes: np.ndarray, before: np.ndarray, min_new_rows: int, whose: str) -> Look:
    new = len(np.setdiff1d(hashes, before))
    gone = len(np.setdiff1d(before, hashes))
    counted = f"{new:,} new rows since {whose}, {gone:,} gone"
    if new < min_new_rows:
        return Look("too few new rows", f"{counted}; waiting for {min_new_rows:,}", len(hashes), new)
    return Look("train", counted, len(hashes), new)


def _hashes_of_version(version: Version, tracking_uri: str) -> np.ndarray | None:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found: np.ndarray = np.load(fetch(tracking_uri, version, f"{FOLDER}/{HASHES}", Path(scratch)))
        except ModelError:
            return None
    return found
