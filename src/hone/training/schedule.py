"""Learning rates, evaluation steps and the number of steps, as pure functions of the settings."""

from __future__ import annotations

import math

from hone.training.settings import Settings


def total_steps(settings: Settings, steps_per_epoch: int) -> int:
    """The number of optimizer steps of the whole training."""
    steps = math.ceil(settings.epochs * steps_per_epoch)
    return min(steps, settings.max_steps) if settings.max_steps else steps


def learning_rate(settings: Settings, peak: float, step: int, total: int) -> float:
    """The learning rate of step `step` of `total`, counted from 0: linear warm-up to `peak`, then the decay of
    `schedule`.

    No step has the rate 0: the first is one warm-up step above it, the last one decay step.
    """
    warmup = math.ceil(settings.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    remaining = (total - step) / (total - warmup)  # share of the decay, from 1 down to 1 / decay steps
    if settings.schedule == "linear":
        return peak * remaining
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 - math.cos(math.pi * remaining))
    return peak


def evaluation_steps(settings: Settings, total: int, steps_per_epoch: int) -> frozenset[int]:
    """Steps (from 1) followed by an evaluation: `evaluations` evenly spread, else each epoch's last and the last."""
    if settings.evaluations:
        return frozenset(max(1, round(total * i / settings.evaluations)) for i in range(1, settings.evaluations + 1))
    return frozenset({*range(steps_per_epoch, total + 1, steps_per_epoch), total})
