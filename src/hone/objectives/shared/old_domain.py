"""Rows of the domain that the base model was trained on: metrics of their own show what fine-tuning made it forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hone.objectives.base import Metric

if TYPE_CHECKING:
    import numpy as np

PREFIX = "old_"  # of the metrics of the old domain


def list_measured(metrics: Mapping[str, Metric], patterns: Sequence[str]) -> dict[str, Metric]:
    """The metrics without those of the old domain if no file is of it."""
    return {name: metric for name, metric in metrics.items() if patterns or not name.startswith(PREFIX)}


def find_old_rows(ids: Sequence[str], patterns: Sequence[str]) -> np.ndarray:
    """Whether each row is of the old domain, bool [rows], by its id (source, colon, position there)."""
    import numpy as np

    return np.array([any(fnmatchcase(name, f"{pattern}:*") for pattern in patterns) for name in ids], bool)


def split_statistics(statistics: np.ndarray, is_old: np.ndarray) -> np.ndarray:
    """Statistics [rows, k] as [rows, 2k]: k columns for the rows of the new domain, k for those of the old."""
    import numpy as np

    return np.concatenate([statistics * ~is_old[:, None], statistics * is_old[:, None]], axis=1)


def split_sums(sums: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The sums [k, n] of the new domain and of the old, from those of `split_statistics` [2k, n].

    `count` is the index of the statistic that counts rows or tokens. Where the new domain has none, its sums are those
    of the old: a slice of old rows alone is shown by the same metrics.
    """
    import numpy as np

    new, old = np.split(sums, 2)
    return np.where(new[count] > 0, new, old), old
