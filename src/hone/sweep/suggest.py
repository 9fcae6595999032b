"""A space to begin with, for a configuration's method and objective."""

from __future__ import annotations

from typing import Any

import yaml

from hone.config.sections import RunConfig
from hone.methods import METHODS
from hone.methods.full import Full
from hone.objectives import OBJECTIVES

# Factors of the default rate, which is within the range of the method's paper: a decade to each side covers those that
# others found best (Bergstra and Bengio, jmlr.org/papers/v13/bergstra12a.html, draw rates on a logarithmic scale).
RATE_FACTORS = (0.1, 10.0)
TRIALS = 20


def suggest_sweep(config: RunConfig) -> dict[str, Any]:
    """The section `sweep` as plain values: peak learning rate, batch size, epochs, and the method's own size."""
    method = METHODS[config.method.kind](**config.method.options())
    default: float = getattr(method, "default_learning_rate", Full.default_learning_rate)
    rate = default * OBJECTIVES[config.objective.kind].rate_factor
    low, high = (float(f"{rate * factor:.1e}") for factor in RATE_FACTORS)
    training = config.training.model_dump()
    batch, epochs = training["batch_size"], max(1, round(training["epochs"]))
    space: dict[str, Any] = {
        "training.learning_rate": {"low": low, "high": min(high, 1.0), "log": True},
        "training.batch_size": sorted({max(1, batch // 2), batch, 2 * batch}),
    }
    if not training["max_steps"]:
        space["training.epochs"] = sorted({max(1, epochs // 2), epochs, 2 * epochs})
    space |= {f"method.{name}": list(values) for name, values in getattr(method, "suggested_values", {}).items()}
    return {
        "trials": TRIALS,
        "metric": f"valid_{config.choose_sweep_metric().metric}",
        "space": space,
        "sampler": "tpe",
        "prune": {"after_evaluations": 1},
    }


def render_suggestion(config: RunConfig) -> str:
    """The suggested section as YAML."""
    lines = yaml.safe_dump({"sweep": suggest_sweep(config)}, sort_keys=False, default_flow_style=None).splitlines()
    return "\n".join([f"# Add to {config.name}'s configuration, and run `hone sweep`.", *lines])
