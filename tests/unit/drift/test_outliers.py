"""The test for rows from elsewhere: what it finds, how often it errs, and what it says that it can find."""

from __future__ import annotations

import numpy as np
import pytest

from hone.drift.check import Settings, compute_verdict
from hone.drift.compare import correct_p_values
from hone.drift.outliers import POWER, compare_outliers, find_visible_share
from hone.registry.reference import Sample


def unit(draw: np.random.Generator, rows: int, about: int = 0) -> np.ndarray:
    """Unit vectors near the axis `about` of 16."""
    vectors = draw.normal(0, 0.2, size=(rows, 16))
    vectors[:, about] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_few_rows_from_elsewhere_are_found_and_counted() -> None:
    draw = np.random.default_rng(1)
    recent = np.concatenate([unit(draw, 108), unit(draw, 12, about=5)])
    finding = compare_outliers(unit(draw, 1000), recent, 499, 3)
    assert finding.p == 1 / 500
    assert finding.effect == pytest.approx(0.1, abs=0.03)
    assert (finding.reference, finding.recent) == (500, 120)
    assert finding.note.startswith("of the farthest 2%: ")


def test_its_p_values_are_those_of_chance_where_nothing_differs() -> None:
    draw = np.random.default_rng(2)
    p = np.array([compare_outliers(unit(draw, 200), unit(draw, 60), 199, seed).p for seed in range(300)])
    for level in (0.05, 0.1, 0.3):
        assert np.mean(p <= level) <= level + 2.5 * np.sqrt(level * (1 - level) / 300)
    assert np.mean(p <= 0.3) >= 0.2


def test_rows_nearer_than_all_others_are_no_outliers() -> None:
    draw = np.random.default_rng(3)
    reference = unit(draw, 400)
    finding = compare_outliers(
        reference, np.tile(reference.mean(0) / np.linalg.norm(reference.mean(0)), (100, 1)), 199, 1
    )
    assert finding.p > 0.5


def test_equal_rows_and_few_rows_are_no_error() -> None:
    same = np.tile(unit(np.random.default_rng(4), 1), (30, 1))
    finding = compare_outliers(same, same[:20], 199, 1)
    assert (finding.p, finding.effect) == (1.0, 0.0)
    assert compare_outliers(same[:4], same[:3], 199, 1).p == 1.0


def test_the_visible_share_is_found_in_four_of_five_checks_and_a_smaller_one_less_often() -> None:
    level = 0.05 / 7
    visible = find_visible_share(1000, 120, 499, level, 17)
    assert visible is not None
    draw, rates = np.random.default_rng(5), []
    for strange in (round(visible * 120), round(visible * 120) - 3):
        hits = 0
        for seed in range(100):
            recent = np.concatenate([unit(draw, 120 - strange), unit(draw, strange, about=5)])
            hits += compare_outliers(unit(draw, 1000), recent, 499, seed).p <= level
        rates.append(hits / 100)
    assert rates[0] >= POWER - 0.1
    assert rates[1] < POWER - 0.1


def test_more_rows_see_smaller_shares_and_too_few_permutations_see_none() -> None:
    shares = [find_visible_share(1000, rows, 499, 0.007, 17) for rows in (60, 120, 500)]
    assert all(shares)
    assert shares == sorted(shares, reverse=True)  # type: ignore[type-var]
    assert find_visible_share(1000, 120, 199, 0.004, 17) is None  # 1/200 is the least p-value


def test_an_effect_below_the_least_is_no_drift_however_significant() -> None:
    draw = np.random.default_rng(6)
    findings = [compare_outliers(unit(draw, 1000), np.concatenate([unit(draw, 108), unit(draw, 12, 5)]), 499, 3)]
    assert correct_p_values(findings, 0.05, least_effect=0.05)[0].drifted
    assert not correct_p_values(findings, 0.05, least_effect=0.2)[0].drifted
    rows = Sample(["a"] * 5000, [1] * 5000, ["en"] * 5000, {"text": (0, 100_000)})
    fewer = Sample(["a"] * 5000, [1] * 5000, ["en"] * 5000, {"text": (100, 100_000)})
    assert compute_verdict(rows, rows, fewer, Settings(least_effect=0)).drifted == ["missing text"]
    assert compute_verdict(rows, rows, fewer, Settings()).decision == "no drift"
