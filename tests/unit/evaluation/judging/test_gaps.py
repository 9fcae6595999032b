"""The gaps between groups: equal to fairlearn's, and with intervals that can be wrong in a known share of cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from hone.evaluation.judging.gaps import (
    Gap,
    Rate,
    change_interval,
    compute_gaps,
    iter_class_rates,
    label_gaps,
    measure_gap,
)
from hone.evaluation.judging.metrics import resample

Mark = tuple[str, np.ndarray, np.ndarray]


def marks(right: np.ndarray, predicted: np.ndarray, classes: int) -> list[Mark]:
    return [(str(n), right == n, predicted == n) for n in range(classes)]


def gaps_of(members: np.ndarray, marked: Sequence[Mark], draws: np.ndarray) -> tuple[Gap, Gap]:
    """Demographic parity and equalised odds."""
    rates = list(iter_class_rates(members, int(members.max()) + 1, marked, draws))
    parity = measure_gap([selection for selection, _, _ in rates], 0.95)
    return parity, measure_gap([rate for _, *odds in rates for rate in odds], 0.95)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("rows", "groups", "classes"), [(40, 2, 2), (300, 3, 2), (60, 4, 5), (500, 5, 9)])
def test_the_gaps_of_each_class_against_the_rest_are_fairlearns(
    seed: int, rows: int, groups: int, classes: int
) -> None:
    generator = np.random.default_rng(seed)
    members = np.concatenate([np.arange(groups), generator.integers(groups, size=rows - groups)])
    right, predicted = generator.integers(classes, size=(2, rows))
    largest = {"parity": 0.0, "odds": 0.0}
    for mark in marks(right, predicted, classes):
        parity, odds = gaps_of(members, [mark], resample(rows, 3, 0))
        arguments = (mark[1].astype(int), mark[2].astype(int))
        theirs = demographic_parity_difference(*arguments, sensitive_features=members)
        assert parity.interval["value"] == pytest.approx(theirs, abs=1e-12)
        theirs_odds = equalized_odds_difference(*arguments, sensitive_features=members)
        assert odds.interval["value"] == pytest.approx(theirs_odds, abs=1e-12)
        largest = {"parity": max(largest["parity"], theirs), "odds": max(largest["odds"], theirs_odds)}
    parity, odds = gaps_of(members, marks(right, predicted, classes), resample(rows, 3, 0))
    assert (parity.interval["value"], odds.interval["value"]) == pytest.approx(tuple(largest.values()), abs=1e-12)


def test_a_group_without_rows_of_a_class_counts_as_fairlearn_counts_it_and_is_named() -> None:
    members = np.repeat([0, 1], 40)
    right = np.where(members == 0, np.arange(80) % 2, 0)  # no row of the second group has the class 1
    predicted = right.copy()
    _, odds = gaps_of(members, [("1", right == 1, predicted == 1)], resample(80, 200, 1))
    assert odds.interval["value"] == equalized_odds_difference(right, predicted, sensitive_features=members) == 1.0
    assert (odds.rate.kind, odds.rate.undefined.tolist()) == ("true positive rate", [1])
    # Of the rates that are defined none differs: nothing shows that the groups do.
    assert (odds.interval["low"], odds.interval["high"]) == (0.0, 1.0)


def test_every_draw_has_the_gap_of_its_own_rows() -> None:
    generator = np.random.default_rng(3)
    members, right, predicted = generator.integers(2, size=(3, 90))
    draws = resample(90, 20, 4)
    parity, odds = gaps_of(members, [("1", right == 1, predicted == 1)], draws)
    for column in range(draws.shape[1]):
        drawn = np.repeat(np.arange(90), draws[:, column])
        theirs = demographic_parity_difference(right[drawn], predicted[drawn], sensitive_features=members[drawn])
        assert parity.gaps[column] == pytest.approx(theirs, abs=1e-12)
        theirs = equalized_odds_difference(right[drawn], predicted[drawn], sensitive_features=members[drawn])
        assert odds.gaps[column] == pytest.approx(theirs, abs=1e-12)


def rate_of(right: np.ndarray, members: np.ndarray, draws: np.ndarray) -> Rate:
    groups = int(members.max()) + 1
    [(_, rate, _)] = iter_class_rates(members, groups, [("", np.ones(len(right), bool), right)], draws)
    return rate


@pytest.mark.parametrize(
    ("shares", "rows"),
    [((0.8, 0.8), 30), ((0.9,) * 6, 25), ((0.9, 0.85, 0.7), 40), ((0.99, 0.99), 25), ((1.0, 1.0, 0.6), 60)],
)
def test_intervals_cover_the_gap_on_infinitely_many_rows_also_where_there_is_none(
    shares: tuple[float, ...], rows: int
) -> None:
    generator = np.random.default_rng(11)
    members, true = np.repeat(np.arange(len(shares)), rows), max(shares) - min(shares)
    covered = percentiles = 0
    for trial in range(120):
        right = generator.random(len(members)) < np.array(shares)[members]
        gap = measure_gap([rate_of(right, members, resample(len(members), 200, trial))], 0.95)
        covered += gap.interval["low"] <= true + 1e-9 and gap.interval["high"] >= true - 1e-9
        low, high = np.quantile(gap.gaps[1:], (0.025, 0.975))
        percentiles += low <= true + 1e-9 and high >= true - 1e-9
    assert covered >= 0.9 * 120
    if shares == (0.9,) * 6:  # the percentiles never hold a gap of 0
        assert percentiles <= 0.05 * 120


def test_groups_whose_rows_are_all_right_still_have_an_interval() -> None:
    members = np.repeat([0, 1], [25, 400])
    gap = measure_gap([rate_of(np.ones(425, bool), members, resample(425, 200, 0))], 0.95)
    assert gap.interval["value"] == gap.interval["low"] == 0
    assert gap.interval["high"] == pytest.approx(3.8415 / (25 + 3.8415), abs=1e-3)  # z² / (n + z²), 25 rows


def test_a_metric_that_is_no_share_has_an_interval_beyond_1() -> None:
    generator = np.random.default_rng(0)
    values = np.array([[5.0], [9.0]]) + np.concatenate([np.zeros((2, 1)), generator.normal(size=(2, 400))], axis=1)
    gap = measure_gap([Rate(values, np.zeros(2))], 0.95)
    assert gap.interval["value"] == 4.0 and gap.ends == (1, 0)
    assert 1 < gap.interval["low"] < 2 and 6 < gap.interval["high"] < 7.5


def test_a_change_of_a_gap_that_is_the_noise_of_the_worse_system_is_none() -> None:
    generator = np.random.default_rng(5)
    members = np.repeat(np.arange(5), 60)
    claims = 0
    for trial in range(60):
        draws = resample(300, 200, trial)
        ours, theirs = (
            measure_gap([rate_of(generator.random(300) < share, members, draws)], 0.95) for share in (0.95, 0.6)
        )
        change = change_interval(ours.gaps, theirs.gaps, 0.95)
        claims += change["low"] > 0 or change["high"] < 0
    assert claims <= 6
    wide, none = np.full(301, 0.4) + generator.normal(0, 0.02, 301), np.full(301, 0.1)
    assert change_interval(wide, none, 0.95)["low"] > 0.2


def test_the_label_rates_of_groups() -> None:
    members = np.array([0, 0, 0, 0, 1, 1])
    rates = label_gaps(
        members, 2, [("a", np.array([1, 1, 1, 0, 0, 1], bool)), ("b", np.array([0, 0, 0, 1, 1, 0], bool))]
    )
    assert rates[0].values.tolist() == [[0.75], [0.5]]
    assert [float(compute_gaps(rate.values)[0]) for rate in rates] == [0.25, 0.25]
