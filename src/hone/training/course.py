"""Whether a training learned anything, from the losses of its steps: a check of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence

MIN_STEPS = 20
SHARE = 0.1  # of the steps, at the beginning and at the end, whose mean losses are compared
LEAST_FALL = 0.02  # relative: a smaller one is no learning


def describe_course(losses: Sequence[float], learning_rate: float) -> str:
    """A sentence if the loss rose, or hardly fell, from the first tenth of the steps to the last; '' if it fell."""
    if len(losses) < MIN_STEPS:
        return ""
    count = max(1, round(SHARE * len(losses)))
    first, last = sum(losses[:count]) / count, sum(losses[-count:]) / count
    if first - last > LEAST_FALL * abs(first):
        return ""
    course = f"from {first:.4g} to {last:.4g}, means of {count} steps"
    if last > first:
        return f"The training loss rose ({course}): the learning rate {learning_rate:.3g} may be too high."
    return (
        f"The training loss hardly fell ({course}): the learning rate {learning_rate:.3g} may be too low, or the rows"
        " have nothing to learn."
    )
