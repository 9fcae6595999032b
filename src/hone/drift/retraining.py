"""Whether there are new rows to train on: compares a source's rows with those that a version was trained on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np

from hone.config.file import parse_config, set_values
from hone.config.sections import RunConfig
from hone.errors import ConfigError, DamagedVersion, ModelError
from hone.objectives import OBJECTIVES
from hone.registry.reference import FOLDER, HASHES, row_hashes, rows_digest
from hone.store import layout
from hone.store.artifact import Artifact
from hone.sweep.trial_config import build_trial_config
from hone.tracking.links import (
    fetch_run_file,
    find_current_version,
    find_newest_tag,
    list_versions_with_tag,
    parsing_run_file,
)
from hone.tracking.reader import SCHEME, Version
from hone.tracking.version_tags import SWEPT

Decision = Literal["train", "nothing new", "too few new rows"]
STEPS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}
MAX_DATES = 1000


@dataclass(frozen=True)
class NewRows:
    """The decision on retraining, its reason, and the numbers of all rows and of rows with new content."""

    decision: Decision
    why: str
    rows: int
    new: int


def find_new_rows(config: RunConfig, rows: Artifact, tracking_uri: str, min_new_rows: int) -> NewRows:
    """Compare the ingested `rows` with those of the model's champion or, without a champion, its newest version.

    A row is new if no row of the version has the same content. Raises ServiceError.
    """
    hashes = compute_row_hashes(config, rows)
    version = find_current_version(tracking_uri, config.registration.model or config.name)
    if version is None:
        return NewRows("train", "the model has no version yet", len(hashes), len(hashes))
    if version.tags.get("hone.rows_digest") == rows_digest(hashes):
        why = f"the source's rows are those that version {version.version} was trained on"
        return NewRows("nothing new", why, len(hashes), 0)
    try:
        version_hashes = _load_version_hashes(version, tracking_uri)
    except DamagedVersion as fault:  # the run that this starts logs the file again
        return NewRows("train", f"version {version.version}: {fault.what}", len(hashes), len(hashes))
    except ModelError:
        return NewRows("train", f"version {version.version} has no record of its rows", len(hashes), len(hashes))
    return _decide(hashes, version_hashes, min_new_rows, f"version {version.version}")


def find_new_rows_as_of(
    config: RunConfig, rows: Artifact, tracking_uri: str, min_new_rows: int, before: Artifact | None
) -> NewRows:
    """The same for rows as of an earlier date: compares with versions trained on exactly these rows, and with `before`.

    `before` are the rows last trained on in a range of dates, None at its start.
    """
    hashes = compute_row_hashes(config, rows)
    model = config.registration.model or config.name
    versions = list_versions_with_tag(tracking_uri, model, "hone.rows_digest", rows_digest(hashes))
    if versions:
        return NewRows("nothing new", f"version {versions[0]} was trained on just these rows", len(hashes), 0)
    if before is None:
        return NewRows("train", "no version was trained on these rows", len(hashes), len(hashes))
    return _decide(hashes, compute_row_hashes(config, before), min_new_rows, "the date before")


def compute_row_hashes(config: RunConfig, rows: Artifact) -> np.ndarray:
    """The sorted hashes of the ingested rows' contents: uint64 [rows]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = OBJECTIVES[config.objective.kind].columns
    batches = pq.ParquetFile(rows.path / layout.ROWS).iter_batches(columns=list(columns))
    hashes = [value for batch in batches for value in row_hashes(pa.Table.from_batches([batch]), columns)]
    return np.sort(np.array(hashes, np.uint64))


def config_as_of(config: RunConfig, moment: date | datetime | None) -> RunConfig:
    """The configuration as of an earlier moment, None for now.

    Raises ConfigError if its source cannot be read as of a moment.
    """
    values = config.model_dump(mode="json")
    values["ingest"]["as_of"] = moment and moment.isoformat()
    return parse_config(values, config.name)


def take_swept_values(config: RunConfig, tracking_uri: str) -> RunConfig:
    """With `sweep.reuse`, the configuration with the values of the model's latest sweep, which `sweep.reused` records.

    As it is without `reuse`, or if no version has such values. Raises ServiceError, and ConfigError if a field of the
    sweep no longer exists.
    """
    if not config.sweep.reuse:
        return config
    text = find_newest_tag(tracking_uri, config.registration.model or config.name, SWEPT)
    try:
        values = json.loads(text or "{}")
    except ValueError:  # a person edited the tag
        raise ModelError(
            f"its tag {SWEPT} is no JSON",
            where=f"{SCHEME}{config.registration.model or config.name}",
            fix="Correct the tag, or set sweep.reuse to false.",
        ) from None
    return set_values(build_trial_config(config, values), {"sweep.reused": values}) if values else config


def list_dates(
    first: date | datetime | None, last: date | datetime | None, step: Literal["day", "week"]
) -> Sequence[date | None]:
    """The dates from `first` to `last`, inclusive if a step falls on it; without `last` only `first`.

    Without `first` it is [None], which means now. Raises ConfigError for `last` without `first`, for an empty range, if
    only one of them has a time of day, or for more than 1,000 dates.
    """
    if first is None and last is not None:
        raise ConfigError("is the end of a range without a start", where=f"until {last}", fix="Give as_of too.")
    if first is None or last is None:
        return [first]
    if isinstance(first, datetime) != isinstance(last, datetime):
        raise ConfigError("are a date and a moment", where="as_of and until", fix="Give two dates, or two moments.")
    moments: list[date | None] = []
    moment = first
    while moment <= last and len(moments) <= MAX_DATES:
        moments.append(moment)
        moment += STEPS[step]
    if not moments or len(moments) > MAX_DATES:
        problem = "ends before it begins" if not moments else f"has more than {MAX_DATES:,} dates"
        raise ConfigError(
            f"the range of dates {problem}", where=f"as_of {first}, until {last}", fix="Correct as_of, until or step."
        )
    return moments


def _decide(hashes: np.ndarray, before: np.ndarray, min_new_rows: int, source: str) -> NewRows:
    new = len(np.setdiff1d(hashes, before))
    gone = len(np.setdiff1d(before, hashes))
    counts = f"{new:,} new rows since {source}, {gone:,} gone"
    if new < min_new_rows:
        return NewRows("too few new rows", f"{counts}; waiting for {min_new_rows:,}", len(hashes), new)
    return NewRows("train", counts, len(hashes), new)


def _load_version_hashes(version: Version, tracking_uri: str) -> np.ndarray:
    path = f"{FOLDER}/{HASHES}"
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch_run_file(tracking_uri, version, path, Path(scratch))
        with parsing_run_file(tracking_uri, version, path):
            return np.asarray(np.load(file), np.uint64)
