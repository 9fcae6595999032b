"""The rows that versions are compared on: the candidate's own test split, and a fixed golden set."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hone.curation.dedup.similar_rows import find_repeats
from hone.errors import ConfigError
from hone.objectives.base import Objective
from hone.store import layout
from hone.store.digests import check_unchanged, file_digest
from hone.store.tables import filter_rows
from hone.tracking.links import fetch_run_file, parsing_run_file
from hone.tracking.reader import Version

if TYPE_CHECKING:
    import pyarrow as pa

GOLDEN = "golden"


@dataclass(frozen=True)
class Rows:
    """Rows to compare on: their name, the SHA-256 of their file, and the number of its rows that were left out."""

    name: str
    digest: str
    table: pa.Table
    left_out: int = 0


def load_split(tracking_uri: str, version: Version, split: str) -> tuple[pa.Table, str]:
    """A split that the version's run logged when it was registered, and the SHA-256 of its file.

    Raises ModelError if it has none, DamagedVersion if it is not what was logged.
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as scratch:
        path = f"{layout.SPLITS}/{layout.rows_file(split)}"
        file = fetch_run_file(tracking_uri, version, path, Path(scratch))
        with parsing_run_file(tracking_uri, version, path):
            return pq.read_table(file, memory_map=False), file_digest(file)


def load_golden_set(path: str, objective: Objective) -> Rows:
    """The rows of the golden file, ingested as a run's source is; raises ConfigError if there is no such file."""
    import pyarrow.parquet as pq

    from hone.parts.variables import expand
    from hone.sources.files import Files
    from hone.sources.ingest import ingest

    file = Path(expand(path))
    if not file.is_file():
        raise ConfigError(
            "there is no such file", where=f"promotion.golden {path}", fix="Name a csv, jsonl or parquet file."
        )
    digest = file_digest(file)
    with tempfile.TemporaryDirectory() as scratch:
        ingest(
            Files(paths=[str(file)]),
            Path(scratch),
            columns=objective.columns,
            rename={},
            keep=[],
            max_refused=0.0,
            shape=objective.start_reading().read,
        )
        check_unchanged({GOLDEN: digest}, {GOLDEN: file_digest(file)}, str(file))
        return Rows(GOLDEN, digest, pq.read_table(Path(scratch) / layout.ROWS, memory_map=False))


def find_leaked(rows: pa.Table, training: pa.Table, objective: Objective, threshold: float) -> list[int]:
    """Positions of `rows` that are duplicates or near duplicates of a training row.

    Duplicates are equal except for case and punctuation; near duplicates have a Jaccard index of their word
    shingles of `threshold` or more of what tells rows apart (`hone.curation.dedup.similar_rows`).
    """
    return [row for row, _ in find_repeats(rows, training, objective, threshold)]


def exclude_rows(rows: Rows, positions: Sequence[int]) -> Rows:
    """The rows except those at `positions`."""
    import numpy as np

    remaining = np.setdiff1d(np.arange(len(rows.table)), np.array(positions, np.int64))
    return Rows(rows.name, rows.digest, filter_rows(rows.table, remaining), rows.left_out + len(set(positions)))
