"""The metrics on parts of the test rows: by length, or by the values of a column such as the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import ConfigError
from hone.evaluation.judging.intervals import Interval
from hone.evaluation.judging.metrics import totals

if TYPE_CHECKING:
    import pyarrow as pa

LENGTH = "length"
MAX_VALUES = 12
OTHER = "other"
EMPTY = "(empty)"


def check_slices(slices: Sequence[str], columns: Sequence[str], text: Sequence[str]) -> None:
    """Raise ConfigError for a slice that is neither `length` nor a column of the rows other than id and text."""
    sliceable = [LENGTH, *(column for column in columns if column not in ("id", *text))]
    unknown = [name for name in slices if name not in sliceable]
    if unknown:
        raise ConfigError(
            f"no such column as {', '.join(unknown)}; there are {', '.join(sliceable)}",
            where="evaluation.slices",
            fix="Name one of these, or keep the column with ingest.keep.",
        )


def slice_parts(name: str, rows: pa.Table, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """The parts of a slice by name, each with the positions of its rows; every row is in exactly one part."""
    if name == LENGTH:
        return split_by_length(_count_words(texts))
    return split_by_value(rows[name].to_pylist())


def split_by_length(words: np.ndarray) -> dict[str, np.ndarray]:
    """Quartiles of the number of words, shortest first: `1-12 words`. Fewer than four if few lengths occur."""
    bounds = np.unique(np.quantile(words, (0.25, 0.5, 0.75, 1), method="inverted_cdf").astype(np.int64))
    places = np.searchsorted(bounds, words)
    parts = {}
    for part in range(len(bounds)):
        positions = np.flatnonzero(places == part)
        low, high = int(words[positions].min()), int(words[positions].max())
        parts[f"{low} words" if low == high else f"{low}-{high} words"] = positions
    return parts


def split_by_value(column: Sequence[Any]) -> dict[str, np.ndarray]:
    """A part for each of the 12 most frequent values, largest first, and `other` for the rest."""
    names = np.array([name_value(value) for value in column], dtype=object)
    values, sizes = np.unique(names, return_counts=True)
    ranked = [str(value) for _, value in sorted(zip(-sizes, values, strict=True))]
    shown = [value for value in ranked[:MAX_VALUES] if value != OTHER]
    parts = {value: np.flatnonzero(names == value) for value in shown}
    rest = np.flatnonzero(~np.isin(names, shown))
    return {**parts, OTHER: rest} if len(rest) else parts


def name_value(value: Any) -> str:
    """The name of a column's value; `(empty)` for none."""
    return EMPTY if value in (None, "") else str(value)


def slice_figures(
    positions_by_part: Mapping[str, np.ndarray],
    statistics: Mapping[str, np.ndarray],
    intervals: Callable[[np.ndarray, int], dict[str, Interval]],
    draws: np.ndarray,
) -> list[dict[str, Any]]:
    """Each part's `name` and number of `rows`, and for each system its metrics with intervals.

    `statistics` are [rows, k] by system, `intervals` computes metrics from their sums and the number of rows. The draws
    are those of the whole test split, restricted to the part's rows.
    """
    return [
        {"name": name, "rows": len(positions)}
        | {
            system: intervals(totals(system_statistics[positions], draws[positions]), len(positions))
            for system, system_statistics in statistics.items()
        }
        for name, positions in positions_by_part.items()
    ]


def _count_words(texts: Sequence[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts], np.int64)
