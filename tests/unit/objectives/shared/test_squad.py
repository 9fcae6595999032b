"""Known answers of SQuAD's official evaluation, each checked with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.objectives.shared import squad


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Cat's hat.", "cats hat"),
        ("an apple a day", "apple day"),
        ("theatre, Athens", "theatre athens"),
        ("U.S.", "us"),
        ("«Ça» – 6½", "«ça» – 6½"),  # ASCII punctuation alone goes
        ("a", ""),
        ("well-known", "wellknown"),
        ("x_y", "xy"),
        ("a-the b", "athe b"),  # punctuation goes first
        ("", ""),
    ],
)
def test_normalization(answer: str, expected: str) -> None:
    assert squad.normalize_answer(answer) == expected


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("the Rhine", ["Rhine"], 1.0, 1.0),
        ("the river Rhine", ["Rhine"], 2 / 3, 0.0),
        ("Rhine", ["Main", "Rhine", "the river Rhine"], 1.0, 1.0),  # the best of several
        ("Denver Broncos team", ["Denver", "The Broncos of Denver"], 2 / 3, 0.0),
        ("b a c a c", ["c c b"], 1.0, 0.0),  # the same words in another order
        ("c c c", ["c c b"], 2 / 3, 0.0),  # as often as they stand in both
        ("Main", ["Rhine"], 0.0, 0.0),
        ("", ["Rhine"], 0.0, 0.0),
        ("", [], 1.0, 1.0),  # no answer, rightly
        ("Rhine", [], 0.0, 0.0),
        ("the", [], 1.0, 1.0),  # nothing is left of it
        ("", ["the"], 1.0, 1.0),  # nothing is left of the reference
        ("Rhine", ["the", "Rhine"], 1.0, 1.0),
        ("", ["the", "Rhine"], 0.0, 0.0),
    ],
)
def test_scores(answer: str, references: list[str], f1: float, exact: float) -> None:
    assert squad.score_answer(answer, references) == (pytest.approx(f1), exact)


def test_the_f1_of_two_spans_counts_their_common_tokens() -> None:
    assert squad.overlap((2, 4), (2, 4)) == 1
    assert squad.overlap((2, 4), (4, 5)) == pytest.approx(2 * 1 / (3 + 2))
    assert squad.overlap((2, 4), (5, 9)) == squad.overlap((2, 4), None) == squad.overlap((-1, -1), (0, 1)) == 0


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(20, 60), seed=st.integers(0, 10_000), levels=st.integers(2, 50))
def test_no_other_threshold_has_a_better_f1(rows: int, seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    has_answer = generator.permutation(np.arange(rows) % 2 == 0)
    margins = generator.integers(0, levels, rows) / 8 - has_answer  # exact: none differ by rounding alone
    f1 = has_answer * generator.random(rows)

    def total(threshold: float) -> float:
        return float(np.where(margins <= threshold, f1, ~has_answer).sum())

    chosen = squad.choose_threshold(margins, f1, has_answer, 0.0)
    steps = np.unique(margins)
    others = [margins.min() - 1, *((steps[:-1] + steps[1:]) / 2), margins.max() + 1]
    assert total(chosen) == pytest.approx(max(map(total, others)))
    equal = [other for other in others if abs(total(other) - total(chosen)) < 1e-9]
    assert abs(chosen) == pytest.approx(min(map(abs, equal)))


def test_few_questions_choose_nothing() -> None:
    has_answer = np.array([True] * 30 + [False] * 9)
    assert squad.choose_threshold(np.zeros(39), np.ones(39), has_answer, 1.5) == 1.5
