from __future__ import annotations

import pytest

from hone.training.schedule import evaluation_steps, learning_rate, total_steps
from hone.training.settings import Settings


def _rates(schedule: str, warmup: float = 0.2) -> list[float]:
    settings = Settings(learning_rate=1.0, schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    return [learning_rate(settings, settings.learning_rate or 0, step, 10) for step in range(10)]


def test_linear_rises_over_the_warm_up_and_falls_to_its_last_share() -> None:
    assert _rates("linear") == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_cosine_starts_and_ends_slowly() -> None:
    rates = _rates("cosine", warmup=0)
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert 0 < rates[9] < 0.05


def test_constant_stays() -> None:
    assert _rates("constant") == [0.5] + [1.0] * 9


def test_steps_of_fractional_epochs_and_limits() -> None:
    assert total_steps(Settings(epochs=2.5), 10) == 25
    assert total_steps(Settings(epochs=0.01), 10) == 1
    assert total_steps(Settings(epochs=3, max_steps=7), 10) == 7


def test_evaluations_fall_on_epochs_or_evenly_and_on_the_end() -> None:
    assert evaluation_steps(Settings(), 25, 10) == {10, 20, 25}
    assert evaluation_steps(Settings(evaluations=4), 10, 10) == {2, 5, 8, 10}
    assert evaluation_steps(Settings(evaluations=50), 3, 10) == {1, 2, 3}
