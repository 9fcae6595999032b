"""What happens at which step: learning rates, evaluations, and the end. Pure functions of the step."""

from __future__ import annotations

import math

from hone.training.settings import Settings


def total_steps(settings: Settings, steps_per_epoch: int) -> int:
    """The number of optimizer steps of a whole training."""
    steps = math.ceil(settings.epochs * steps_per_epoch)
    return min(steps, settings.max_steps) if settings.max_steps else steps


def learning_rate(settings: Settings, step: int, total: int) -> float:
    """The learning rate of step `step` of `total`, counted from 0: a linear rise, then what `schedule` says.

    No step is done at 0: the first takes a first share of the rise, the last a last share of the fall.
    """
    warmup = math.ceil(settings.warmup * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    left = (total - step) / (total - warmup)
    if settings.schedule == "linear":
        return settings.learning_rate * left
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 - math.cos(math.pi * left))
    return settings.learning_rate


def evaluation_steps(settings: Settings, total: int, steps_per_epoch: int) -> frozenset[int]:
    """After which steps the validation split is evaluated: evenly spread, or each epoch's last; and the very last."""
    if settings.evaluations:
        return frozenset(max(1, round(total * i / settings.evaluations)) for i in range(1, settings.evaluations + 1))
    return frozenset({*range(steps_per_epoch, total + 1, steps_per_epoch), total})
