"""Metrics from counts, which several objectives compute from the sums of their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hone.objectives.base import UNSEEN

if TYPE_CHECKING:
    import numpy as np


def safe_ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is 0."""
    import numpy as np

    ratio: np.ndarray = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return ratio


def metrics_by_group(
    names: Sequence[str], right: np.ndarray, support: np.ndarray, predicted: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """`precision`, `recall`, `f1` and `support` [n] of each name, from counts [names + 1, n]; nan where undefined.

    The last counts are those of all names that no training row has: the group UNSEEN, left out where there are none.
    """
    metrics = {
        "precision": safe_ratio(right, predicted),
        "recall": safe_ratio(right, support),
        "f1": safe_ratio(2 * right, support + predicted),
        "support": support,
    }
    shown = [*names, UNSEEN] if support[-1][0] else names
    return {name: {metric: values[i] for metric, values in metrics.items()} for i, name in enumerate(shown)}
