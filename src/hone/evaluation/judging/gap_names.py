"""The names of the gaps between groups in metrics.json."""

from __future__ import annotations

METRIC = "metric"  # the best group's main metric minus the worst one's
PARITY = "demographic_parity"
ODDS = "equalized_odds"
