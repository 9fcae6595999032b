"""Recent inputs of a model, from any source; labels are not needed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hone.errors import DataError
from hone.objectives.base import Objective
from hone.objectives.shared.inputs import rewrite_inputs
from hone.rewriting import Rewriter
from hone.sources.ingest import text_of
from hone.sources.renaming import rename_columns
from hone.sources.source import Source

Row = Mapping[str, str | None]


@dataclass(frozen=True)
class Recent:
    """A random sample of the rows, the number of rows read, and for each input (rows without it, all rows).

    `unreadable` is the number of rows that the source could not read; the other counts exclude them.
    """

    rows: list[Row]
    rows_read: int
    unreadable: int
    missing: Mapping[str, tuple[int, int]]


def read_recent(source: Source, objective: Objective, rename: Mapping[str, str], sample: int, seed: int) -> Recent:
    """A random sample of at most `sample` of the source's rows, with the objective's inputs, drawn in one pass.

    `rename` maps columns to the source's names where they differ. Raises DataError if an input is in no row.
    """
    rows: list[Row] = []
    generator, rows_read, unreadable = random.Random(seed), 0, 0
    rows_without: Counter[str] = Counter()
    columns: set[str] = set()
    for raw in source.rows():
        if raw.refused:
            unreadable += 1
            continue
        row = _extract_inputs(rename_columns(raw.values, rename), objective)
        columns |= row.keys()
        rows_without.update(name for name in objective.inputs if not (row.get(name) or "").strip())
        if len(rows) < sample:
            rows.append(row)
        elif (index := generator.randrange(rows_read + 1)) < sample:  # Vitter's algorithm R
            rows[index] = row
        rows_read += 1
    for name in objective.inputs:
        if rows_read and name not in columns:
            raise DataError(
                f"there is no column {rename.get(name, name)!r} in any of {rows_read} recent rows",
                where="monitoring.inputs",
                fix="Recent inputs need the model's input columns, under the names that ingest uses.",
            )
    return Recent(rows, rows_read, unreadable, {name: (rows_without[name], rows_read) for name in objective.inputs})


def rewrite_recent(recent_rows: Recent, objective: Objective, rewriters: Sequence[Rewriter]) -> Recent:
    """The rows as a model with these rewriters reads them; one of a wrong form, which it refuses, stays as it is."""
    return replace(recent_rows, rows=[_rewrite(row, objective, rewriters) for row in recent_rows.rows])


def _rewrite(row: Row, objective: Objective, rewriters: Sequence[Rewriter]) -> Row:
    with suppress(ValueError):
        return rewrite_inputs(objective, rewriters, {name: row.get(name) or "" for name in objective.inputs})[0]
    return row


def _extract_inputs(values: Mapping[str, Any], objective: Objective) -> dict[str, str | None]:
    """The inputs that the row has, whether or not it has labels."""
    import pyarrow as pa

    with suppress(ValueError):  # a row without labels is still an input
        values = {**values, **objective.normalize_row(values)}
    inputs = {name: _text(values[name]) for name in objective.inputs if name in values}
    if not inputs and all(name in values for name in objective.columns):
        row = pa.table({name: pa.array([_text(values[name])], pa.string()) for name in objective.columns})
        return dict(objective.inference_inputs(row)[0])
    return inputs


def _text(value: Any) -> str | None:
    try:
        return text_of(value)
    except ValueError:  # bytes that are not text
        return None
