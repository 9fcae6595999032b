"""The values that a sweep tries, as plain data: by field a list, or a range {low, high, log, step} of numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = Mapping[str, Any]
Range = Mapping[str, Any]
Space = Mapping[str, Sequence[Any] | Range]

GRID_MAXIMUM = 10_000  # combinations; a sweep has at most 1,000 trials


def build_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each field. A choice that is no plain value stands as JSON (`decode`)."""
    return {path: _build_distribution(values) for path, values in space.items()}


def _build_distribution(values: Sequence[Any] | Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Mapping):
        return CategoricalDistribution([encode(value) for value in values])
    low, high, step, log = values["low"], values["high"], values.get("step"), bool(values.get("log"))
    if _is_whole(values):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _is_whole(values: Range) -> bool:
    return all(isinstance(number, int) for number in (values["low"], values["high"], values.get("step") or 1))


def encode(value: Any) -> Any:
    """A value as Optuna takes it: lists and mappings as JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value


def decode(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of Optuna's parameters, as they are in the space."""
    values = {}
    for path, param in params.items():
        choices = space[path]
        values[path] = (
            param if isinstance(choices, Mapping) else next(choice for choice in choices if encode(choice) == param)
        )
    return values


def list_grid(space: Space) -> list[dict[str, Any]]:
    """All combinations, the last field varying fastest. Raises ConfigError for a range without steps."""
    columns = [_list_steps(path, values) for path, values in space.items()]
    combinations = itertools.islice(itertools.product(*columns), GRID_MAXIMUM)
    return [dict(zip(space, combination, strict=True)) for combination in combinations]


def _list_steps(path: str, values: Sequence[Any] | Range) -> list[Any]:
    if not isinstance(values, Mapping):
        return list(values)
    step = values.get("step") or (1 if _is_whole(values) and not values.get("log") else None)
    if step is None:
        raise ConfigError(
            "a grid needs single values",
            where=f"sweep.space, {path}",
            fix="List them, give the range a step, or choose the sampler tpe or random.",
        )
    count = int((values["high"] - values["low"]) / step + 1e-9) + 1
    return [values["low"] + i * step for i in range(count)]
