"""Wilson's score interval of a share (Journal of the American Statistical Association 22, 1927)."""

from __future__ import annotations

import math


def wilson(share: float, rows: float, z: float) -> tuple[float, float]:
    """Wilson's score interval for a share of `rows` rows; `z` is the quantile of the normal distribution."""
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)
