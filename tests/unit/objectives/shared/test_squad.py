"""Known answers of SQuAD's official evaluation, each checked with it."""

from __future__ import annotations

import pytest

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
