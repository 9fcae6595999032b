"""The check of the learning rate, and the rates that methods have by default."""

from __future__ import annotations

import math

import pytest

from hone.methods import METHODS
from hone.methods.freeze import Freeze
from hone.objectives.preference.objective import Preference
from hone.objectives.text_classification import TextClassification
from hone.training.course import describe_course
from hone.training.session import choose_peak_rate
from hone.training.settings import Settings


def test_a_loss_that_falls_is_nothing_to_speak_of() -> None:
    assert describe_course([math.exp(-step / 50) for step in range(100)], 1e-4) == ""
    assert describe_course([1.0] * 19, 1e-4) == ""  # too few steps to say


def test_a_loss_that_rises_or_stays_is_named_with_the_rate() -> None:
    rising = [1 + step / 100 for step in range(100)]
    assert describe_course(rising, 0.1) == (
        "The training loss rose (from 1.045 to 1.945, means of 10 steps): the learning rate 0.1 may be too high."
    )
    assert "hardly fell (from 1 to 0.99" in describe_course([1.0] * 50 + [0.99] * 50, 1e-9)
    # Losses below 0 (of a preference's odds) fall too.
    assert describe_course([-1 - step / 10 for step in range(100)], 1e-4) == ""


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_has_a_rate_of_its_own_unless_one_is_set(kind: str) -> None:
    method, objective = METHODS[kind](), TextClassification()
    default = choose_peak_rate(Settings(), objective, method)
    expected = {"full": 5e-5, "freeze": 1e-3, "lora": 2e-4, "qlora": 2e-4, "ia3": 3e-3, "prompt": 3e-2, "prefix": 1e-2}
    assert default == expected.get(kind, 5e-5)
    assert choose_peak_rate(Settings(learning_rate=0.5), objective, method) == 0.5
    assert choose_peak_rate(Settings(), Preference(), method) == pytest.approx(default / 50)


def test_freeze_with_layers_has_the_rate_of_full() -> None:
    assert choose_peak_rate(Settings(), TextClassification(), Freeze(layers=1)) == 5e-5
