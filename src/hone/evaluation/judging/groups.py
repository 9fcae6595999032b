"""The same model on groups of the test rows: the worst group, the gaps between groups, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import ConfigError
from hone.evaluation.judging.gap_names import METRIC, ODDS, PARITY
from hone.evaluation.judging.gaps import (
    Gap,
    Rate,
    change_interval,
    compute_gaps,
    iter_class_rates,
    label_gaps,
    measure_gap,
)
from hone.evaluation.judging.metrics import totals
from hone.evaluation.judging.slices import name_value, slice_figures
from hone.objectives.base import UNSEEN, Outcome

if TYPE_CHECKING:
    from hone.evaluation.judging.evaluate import Trial
    from hone.objectives.base import Targets

# Rows from which a group is judged. On 20 rows the 95% interval of an accuracy of 0.8 is 0.37 wide.
MIN_ROWS = 20
MAX_GROUPS = 50  # the largest are judged: with more, every gap is one between two small groups
BASES = ("untuned", "neighbours")  # what stands for the model before its fine-tuning: the first that there is


@dataclass(frozen=True)
class Groups:
    """The groups of a column that are judged, the largest first, and the number of rows of those `left_out`.

    `positions` [n] are the rows of the judged groups, `members` [n] the numbers of their groups.
    """

    names: Sequence[str]
    positions: np.ndarray
    members: np.ndarray
    left_out: Mapping[str, int]

    def rows_of(self, number: int) -> np.ndarray:
        """The positions of the rows of one group."""
        rows: np.ndarray = self.positions[self.members == number]
        return rows


@dataclass(frozen=True)
class LabelledRows:
    """The training rows: the columns of groups by name, and the classes as `Objective.class_labels` returns them."""

    columns: Mapping[str, Sequence[Any]]
    classes: np.ndarray


def check_groups(groups: Sequence[str], columns: Sequence[str], objective: Sequence[str]) -> None:
    """Raise ConfigError for a group column that is not among the rows' columns beside the id and the `objective`'s."""
    choices = [column for column in columns if column not in ("id", *objective)]
    if unknown := [name for name in groups if name not in choices]:
        raise ConfigError(
            f"no such column as {', '.join(unknown)}; there are {', '.join(choices) or 'none'}",
            where="evaluation.groups",
            fix="Name one of these, or keep the column with ingest.keep.",
        )


def split_groups(column: Sequence[Any]) -> Groups:
    """The groups of a column's values, `(empty)` for rows without one; those with fewer than MIN_ROWS are left out."""
    names = np.array([name_value(value) for value in column], dtype=object)
    values, sizes = np.unique(names, return_counts=True)
    ranked = [(str(name), int(size)) for size, name in sorted(zip(-sizes, values, strict=True))]
    judged = [name for name, size in ranked[:MAX_GROUPS] if -size >= MIN_ROWS]
    number_by_name = {name: number for number, name in enumerate(judged)}
    numbers = np.array([number_by_name.get(name, -1) for name in names], np.int64)
    positions = np.flatnonzero(numbers >= 0)
    left_out = {name: -size for name, size in ranked if name not in number_by_name}
    return Groups(judged, positions, numbers[positions], left_out)


def judge_groups(
    trial: Trial, draws: np.ndarray, columns: Sequence[str], training: LabelledRows | None
) -> dict[str, Any]:
    """For each of `columns` its groups' figures, the gaps of the model and of what it was before, and their change.

    `draws` are those of all test rows (`metrics.resample`).
    """
    base = next((name for name in BASES if name in trial.outcomes), None)
    return {column: _judge_column(trial, draws, column, base, training) for column in columns}


def metric_rate(groups: Groups, draw: Callable[[np.ndarray], np.ndarray], share: bool) -> tuple[Groups, Rate]:
    """The main metric as the rate of the groups; those in which it is undefined are left out.

    `draw` computes it for the rows at some positions, on all draws [1 + resamples].
    """
    values = [draw(groups.rows_of(number)) for number in range(len(groups.names))]
    defined = [number for number, figure in enumerate(values) if np.isfinite(figure[0])]
    rows = np.bincount(groups.members, minlength=len(groups.names))
    if len(defined) < len(groups.names):
        undefined = {name: int(rows[n]) for n, name in enumerate(groups.names) if n not in defined}
        has_metric = np.isin(groups.members, defined)
        members = np.searchsorted(defined, groups.members[has_metric])
        names = [groups.names[n] for n in defined]
        groups = Groups(names, groups.positions[has_metric], members, {**groups.left_out, **undefined})
    matrix = np.stack([values[number] for number in defined]) if defined else np.zeros((0, 1))
    return groups, Rate(matrix, rows[defined] * share)


def _judge_column(
    trial: Trial, draws: np.ndarray, column: str, base: str | None, training: LabelledRows | None
) -> dict[str, Any]:
    main, share = trial.objective.main_metric, trial.objective.metrics[trial.objective.main_metric].share
    groups, rate = metric_rate(
        split_groups(trial.rows[column].to_pylist()), lambda rows: _draw_metric(trial, "model", rows, draws), share
    )
    systems = ["model", *([base] if base else [])]
    report: dict[str, Any] = {
        "min_rows": MIN_ROWS,
        "left_out": [{"name": name, "rows": rows} for name, rows in groups.left_out.items()],
        "judged": slice_figures(
            {name: groups.rows_of(number) for number, name in enumerate(groups.names)},
            {system: trial.outcomes[system].statistics for system in systems},
            trial.intervals,
            draws,
        ),
        "base": base,
        "gaps": {},
        "changes": {},
        "labels": None,
    }
    if len(groups.names) < 2:
        return report
    gaps = {"model": {METRIC: measure_gap([rate], trial.confidence)} | _class_gaps(trial, groups, "model", draws)}
    if base:
        rates = [_draw_metric(trial, base, groups.rows_of(n), draws) for n in range(len(groups.names))]
        gaps[base] = {METRIC: measure_gap([Rate(np.array(rates), rate.rows)], trial.confidence)}
        gaps[base] |= _class_gaps(trial, groups, base, draws)
        report["changes"] = {
            name: change_interval(gap.gaps, gaps[base][name].gaps, trial.confidence)
            for name, gap in gaps["model"].items()
        }
    report["gaps"] = {
        system: {name: _describe_gap(gap, groups) for name, gap in by_name.items()} for system, by_name in gaps.items()
    }
    best, worst = gaps["model"][METRIC].ends
    lower = trial.objective.metrics[main].lower
    report["worst"], report["best"] = (groups.names[n] for n in ((best, worst) if lower else (worst, best)))
    report["labels"] = _judge_labels(trial, groups, column, training)
    return report


def _draw_metric(trial: Trial, system: str, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A system's main metric on the rows at these positions, on every draw: [1 + resamples]."""
    sums = totals(trial.outcomes[system].statistics[rows], draws[rows])
    return trial.figures(sums)[trial.objective.main_metric]


def _class_gaps(trial: Trial, groups: Groups, system: str, draws: np.ndarray) -> dict[str, Gap]:
    """The largest gaps of demographic parity and of equalised odds over all classes; empty without classes."""
    marks = list(iter_marks(trial.outcomes[system], trial.targets))
    if not marks:
        return {}
    rows = groups.positions
    chosen = [(name, has_class[rows], predicted[rows]) for name, has_class, predicted in marks]

    def iter_rates(odds: bool) -> Iterator[Rate]:
        for selection, true, false in iter_class_rates(groups.members, len(groups.names), chosen, draws[rows]):
            yield from (true, false) if odds else (selection,)

    return {
        PARITY: measure_gap(iter_rates(False), trial.confidence),
        ODDS: measure_gap(iter_rates(True), trial.confidence),
    }


def iter_marks(outcome: Outcome, targets: Targets) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each class's name, the rows that have it, and the rows that it was predicted for, bool [rows]; none without."""
    names = [*targets.get("labels", ()), UNSEEN]
    if outcome.classes is not None:
        right, predicted = outcome.classes
        for number in range(int(max(right.max(), predicted.max(), len(names) - 2)) + 1):
            yield names[number], right == number, predicted == number
    elif outcome.label_sets is not None:
        for number in range(outcome.label_sets.shape[2]):
            yield names[number], *(outcome.label_sets[side, :, number] for side in (0, 1))


def _describe_gap(gap: Gap, groups: Groups) -> dict[str, Any]:
    """A gap's interval, the groups at its ends with their values, and the class and rate that it is of."""
    highest, lowest = gap.ends
    values = np.nan_to_num(gap.rate.values[:, 0], nan=0.0)
    return {
        **gap.interval,
        "highest": {"name": groups.names[highest], "value": float(values[highest])},
        "lowest": {"name": groups.names[lowest], "value": float(values[lowest])},
        "class": gap.rate.name,
        "rate": gap.rate.kind,
        "undefined": [groups.names[number] for number in gap.rate.undefined],
    }


def _judge_labels(trial: Trial, groups: Groups, column: str, training: LabelledRows | None) -> dict[str, Any] | None:
    """The largest gap of a class's share of the training labels, and that of the model's answers for the class.

    None without classes, or if fewer than two of the groups have training rows. The training rows are all there are,
    not a sample: without an interval.
    """
    if training is None:
        return None
    number_by_name = {name: number for number, name in enumerate(groups.names)}
    numbers = np.array([number_by_name.get(name_value(value), -1) for value in training.columns[column]], np.int64)
    rows = np.flatnonzero(numbers >= 0)
    present = np.unique(numbers[rows])
    if len(present) < 2:
        return None
    members = np.searchsorted(present, numbers[rows])
    classes, names = training.classes[rows], list(trial.targets["labels"])
    marks = [(name, classes == n if classes.ndim == 1 else classes[:, n].astype(bool)) for n, name in enumerate(names)]
    gap = measure_gap(label_gaps(members, len(present), marks), trial.confidence)
    highest, lowest = (groups.names[present[end]] for end in gap.ends)
    return {
        "value": gap.interval["value"],
        "class": gap.rate.name,
        "highest": highest,
        "lowest": lowest,
        "rows": len(rows),
        "answers": _measure_answers(trial, groups, gap.rate.name),
    }


def _measure_answers(trial: Trial, groups: Groups, name: str) -> float:
    """The gap of the share of the model's answers that are the class `name`, between the groups."""
    predicted = next(marked for label, _, marked in iter_marks(trial.ours, trial.targets) if label == name)
    count = len(groups.names)
    [rate] = label_gaps(groups.members, count, [(name, predicted[groups.positions])])
    return float(compute_gaps(rate.values)[0])
