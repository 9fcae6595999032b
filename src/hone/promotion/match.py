"""Candidate and champion on the same rows: their outcomes, and metrics on resamples of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hone.config.sections import Promotion
from hone.evaluation.judging import metrics
from hone.evaluation.judging.intervals import Interval, metric_intervals
from hone.evaluation.judging.paired_rows import PairedRows, count_paired_rows
from hone.objectives.base import Outcome
from hone.promotion.contender import Contender, common_labels
from hone.promotion.rows import Rows
from hone.store.tables import take_rows
from hone.tracking.aliases import CANDIDATE, CHAMPION


@dataclass(frozen=True)
class Match:
    """Both versions' outcomes on the same rows, in the same order. Without a champion there is only the candidate's."""

    rows: Rows
    candidate: Contender
    labels: Sequence[str]
    outcomes: Mapping[str, Outcome]
    draws: np.ndarray

    def compute_metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The objective's metrics [k] by name, from summed statistics [k, n]."""
        return self.candidate.objective.compute_metrics(sums, self.candidate.widen_targets(self.labels))

    def compute_intervals(self, name: str, confidence: float) -> dict[str, Interval]:
        """The metrics of version `name` with intervals."""
        objective, targets = self.candidate.objective, self.candidate.widen_targets(self.labels)
        sums, rows = metrics.totals(self.outcomes[name].statistics, self.draws), len(self.rows.table)
        rows_by_metric = objective.count_rows(sums[:, 0], targets)
        return metric_intervals(self.compute_metrics(sums), objective.metrics, confidence, rows, rows_by_metric)

    def draw_main_metric(self, name: str, positions: np.ndarray | None = None) -> np.ndarray:
        """The main metric of version `name` on every draw, for all rows or those at `positions`: [1 + resamples]."""
        statistics, draws = self.outcomes[name].statistics, self.draws
        if positions is not None:
            statistics, draws = statistics[positions], draws[positions]
        return self.compute_metrics(metrics.totals(statistics, draws))[self.candidate.objective.main_metric]

    @property
    def paired(self) -> PairedRows:
        """How the two versions differ on the rows."""
        return count_paired_rows(
            self.outcomes[CANDIDATE],
            self.outcomes[CHAMPION],
            float(self.draw_main_metric(CANDIDATE)[0]),
            float(self.draw_main_metric(CHAMPION)[0]),
        )

    @property
    def lower(self) -> bool:
        """Whether lower values of the main metric are better."""
        return self.candidate.objective.metrics[self.candidate.objective.main_metric].lower


def build_match(rows: Rows, contenders: Mapping[str, Contender], settings: Promotion) -> Match:
    """Evaluate both versions on the same rows, each as it reads them.

    Rows that one of them cannot encode are left out for both.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = common_labels(list(contenders.values()), [rows.table])
    tables = {name: contender.rewrite(rows.table) for name, contender in contenders.items()}
    tokens = {name: contender.encode(tables[name], labels) for name, contender in contenders.items()}
    ids_by_version = [set(encoded["id"].to_pylist()) for encoded in tokens.values()]
    both = pa.array(sorted(set.intersection(*ids_by_version)), pa.string())
    table = rows.table.filter(pc.is_in(rows.table["id"], value_set=both))
    rows = Rows(rows.name, rows.digest, table, rows.left_out + len(rows.table) - len(table))
    outcomes = {}
    for name, contender in contenders.items():
        encoded = tokens[name].filter(pc.is_in(tokens[name]["id"], value_set=both))
        encoded = take_rows(encoded, _in_order_of(table["id"].to_pylist(), encoded["id"].to_pylist()))
        predictions, targets = contender.predict(encoded, labels), contender.widen_targets(labels)
        read = tables[name].filter(pc.is_in(tables[name]["id"], value_set=both))
        outcomes[name] = contender.objective.compute_outcome(encoded, predictions, targets, read)
    draws = metrics.resample(len(table), settings.resamples, settings.seed)
    return Match(rows, contenders[CANDIDATE], labels, outcomes, draws)


def _in_order_of(ids: Sequence[str], encoded: Sequence[str]) -> list[int]:
    """Positions that bring the encoded rows into the order of `ids`; windows of one row stay in their order."""
    position_by_id = {name: index for index, name in enumerate(ids)}
    return sorted(range(len(encoded)), key=lambda index: position_by_id[encoded[index]])
