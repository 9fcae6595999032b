"""The gates of bias: limits on the candidate, whatever the champion is like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hone.config.sections import Guards, Promotion
from hone.promotion.bias import judge_bias, judge_flip_rate, judge_group_gaps
from hone.promotion.gates import Gate
from tests.unit.promotion.matches import hits, match


def settings(**more: Any) -> Promotion:
    limits = {name: more.pop(name) for name in ("group_gap", "flip_rate") if name in more}
    return Promotion(guards=Guards(**limits), resamples=500, **more)


def judge_gap(share_a: float, share_b: float, rows: int, champion: float = 0.9, **more: Any) -> Gate:
    """The gate on two groups of `rows` rows with these accuracies."""
    ours = np.concatenate([hits(rows, share_a), hits(rows, share_b)])
    source = ["a"] * rows + ["b"] * rows
    compared = match(ours, hits(2 * rows, champion), source=source)
    [gate] = judge_group_gaps(compared, settings(**{"group_gap": 0.1, **more}), ["source"])
    return gate


def test_a_gap_beyond_the_limit_for_certain_refuses_though_the_champions_is_as_wide() -> None:
    gate = judge_gap(0.95, 0.6, 200, champion=0.5)
    assert not gate.passed and not gate.inconclusive
    assert gate.figure == pytest.approx(0.35) and gate.low is not None and gate.low > 0.1
    assert gate.note == "highest a 0.95, lowest b 0.6" and gate.rows == "test"


def test_a_gap_beyond_the_limit_by_chance_is_inconclusive_and_follows_the_rule() -> None:
    gate = judge_gap(0.95, 0.8, 40)
    assert gate.passed and gate.inconclusive and "perhaps by chance" in gate.note
    gate = judge_gap(0.95, 0.8, 40, inconclusive="refuse")
    assert not gate.passed and gate.inconclusive


def test_a_gap_within_the_limit_passes_and_no_limit_is_no_gate() -> None:
    gate = judge_gap(0.9, 0.85, 200)
    assert gate.passed and not gate.inconclusive
    compared = match(hits(100, 0.5), hits(100, 0.9), source=["a"] * 50 + ["b"] * 50)
    assert judge_bias([compared], {}, settings(), ["source"]) == []
    # A golden set without the column has no such gate.
    assert judge_group_gaps(compared, settings(group_gap=0.1), ["region"]) == []


def test_too_few_rows_of_a_group_decide_nothing() -> None:
    gate = judge_gap(1.0, 0.0, 19)
    assert gate.passed and gate.inconclusive and gate.figure is None
    assert gate.note == "fewer than two groups have 20 rows"
    assert not judge_gap(1.0, 0.0, 19, inconclusive="refuse").passed


@pytest.mark.parametrize(
    ("changed", "rows", "passed", "inconclusive"),
    [(60, 200, False, False), (12, 100, True, True), (4, 100, True, False), (0, 10, True, False)],
)
def test_the_rate_of_flips_is_judged_by_wilsons_interval_at_the_level(
    changed: int, rows: int, passed: bool, inconclusive: bool
) -> None:
    report = {"flips": {"lexicon": "gender-en", "rows": rows, "changed": changed}}
    [gate] = judge_flip_rate(report, settings(flip_rate=0.1))
    assert (gate.passed, gate.inconclusive) == (passed, inconclusive)
    assert gate.figure == changed / rows
    assert f"{changed} of {rows} rows with words of gender-en" in gate.note


@pytest.mark.parametrize("flips", [None, {"lexicon": "gender-en", "rows": 0, "changed": 0}])
def test_an_evaluation_without_swapped_words_shows_nothing(flips: Any) -> None:
    [gate] = judge_flip_rate({"flips": flips}, settings(flip_rate=0.1))
    assert gate.passed and gate.inconclusive and gate.figure is None
    [gate] = judge_flip_rate({}, settings(flip_rate=0.1, inconclusive="refuse"))  # of an earlier release
    assert not gate.passed
