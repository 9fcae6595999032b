"""The section `sweep`: which values of other fields `hone sweep` tries, and how it chooses among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from hone.config.parts import Section

ENDS = {"low", "high"}


class Range(Section):
    """The numbers from `low` to `high`; whole numbers if both ends are."""

    low: int | float = Field(description="Lowest value.")
    high: int | float = Field(description="Highest value.")
    log: bool = Field(False, description="Whether values are drawn on a logarithmic scale, as for learning rates.")
    step: int | float | None = Field(None, gt=0, description="Distance between values; null for any value.")

    @model_validator(mode="after")
    def _check_ends(self) -> Range:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("log needs low above 0")
        if self.log and self.step is not None:
            raise ValueError("set either log or step")
        return self


class Prune(Section):
    """When a trial ends early: if its best evaluation so far is worse than the median of earlier trials."""

    after_evaluations: int = Field(1, ge=1, description="Number of evaluations after which a trial may be ended.")
    after_trials: int = Field(4, ge=1, description="Number of complete trials before which none is ended.")


class Sweep(Section):
    """Values of other fields to try with `hone sweep`. Not part of any stage's cache key but the sweep's own."""

    trials: int = Field(20, ge=1, le=1000, description="Maximum number of trials, each a training.")
    metric: str = Field(
        "",
        description="Validation metric that decides, such as valid_macro_f1 or valid_loss; empty for that of"
        " training.metric.",
    )
    space: dict[str, Range | list[JsonValue]] = Field(
        default_factory=dict,
        description="Values to try by field: a list, or {low, high, log, step}. Fields of model, method, objective,"
        " tokenization and training.",
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description="How values are chosen: by the results so far (TPE), at random, or all combinations in order.",
    )
    prune: Prune | None = Field(None, description=f"{Prune.__doc__} null: never.")
    parallel: int = Field(1, ge=1, le=64, description="Number of trials at a time.")
    seed: int = Field(17, ge=0, description="Seed of the sampler.")
    reuse: bool = Field(
        False, description="Whether retraining takes the values of the model's latest sweep over those of the file."
    )
    reused: dict[str, JsonValue] = Field(
        default_factory=dict, description="Set by retraining with reuse: the values that it took, for the record."
    )

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, space: Any) -> Any:
        """Fields may be nested as in the file, {training: {epochs: [1, 2]}}: an override writes them so."""
        if not isinstance(space, Mapping):
            return space
        fields = dict(_iter_fields(space, ""))
        for path, values in fields.items():
            is_range = isinstance(values, Mapping) and ENDS <= values.keys() <= Range.model_fields.keys()
            if not (is_range or isinstance(values, list | Range)):
                raise ValueError(f"{path}: write a list of values, or a range: {{low, high}} with log or step")
        return fields

    @field_validator("space")
    @classmethod
    def _check_lists(cls, space: dict[str, Range | list[JsonValue]]) -> dict[str, Range | list[JsonValue]]:
        for path, values in space.items():
            if isinstance(values, list) and (not values or any(values.count(value) > 1 for value in values)):
                raise ValueError(f"{path}: list at least one value, each once")
        return space


def _iter_fields(tree: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and not ENDS & value.keys():
            yield from _iter_fields(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
