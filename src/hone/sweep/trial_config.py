"""The configuration of a sweep's trial, and the check that every trial can have one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hone.config.file import set_values
from hone.config.paths import list_paths
from hone.config.sections import RunConfig
from hone.config.sweep import Range
from hone.errors import ConfigError
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.parts.options import learning, list_option_names
from hone.sweep.space import Space, Values

SECTIONS = ("model", "method", "tokenization", "training", "objective")
METHOD, KIND = "method", "method.kind"


def list_space(config: RunConfig) -> Space:
    """The space as plain data."""
    space = config.sweep.space
    return {
        path: values.model_dump(exclude_defaults=True) if isinstance(values, Range) else list(values)
        for path, values in space.items()
    }


def check_space(config: RunConfig) -> None:
    """Raise ConfigError unless every field of the space exists and takes its values.

    The other fields are as configured; the options of a method that not all methods of the space have are checked with
    those that have them.
    """
    space = config.sweep.space
    if not space:
        raise ConfigError(
            "there are no fields to vary", where="sweep.space", fix="`hone sweep --suggest CONF` prints a space."
        )
    names = [re.compile(path) for path in list_paths()]
    for path in space:
        section, _, option = path.partition(".")
        learning_options = learning(OBJECTIVES[config.objective.kind])
        if section not in SECTIONS or (section == "objective" and option not in learning_options):
            options = [f"objective.{name}" for name in sorted(learning_options)]
            raise ConfigError(
                "a sweep cannot vary this field: its trials must have the same rows and measures",
                where=f"sweep.space, {path}",
                fix=f"Vary fields of {', '.join([*SECTIONS[:-1], *options])}.",
            )
        if not any(name.fullmatch(path) for name in names):
            raise ConfigError("no such field", where=f"sweep.space, {path}", fix="`hone schema` prints every field.")
    kinds = _list_method_kinds(config)
    for path, values in space.items():
        option = path.removeprefix(f"{METHOD}.")
        if path not in (KIND, option) and not any(option in list_option_names(METHODS[kind]) for kind in kinds):
            raise ConfigError(
                f"no method of the sweep has this option ({', '.join(kinds)})",
                where=f"sweep.space, {path}",
                fix=f"Correct its name, or add a method that has it to {KIND}.",
            )
        for value in list_ends(values):
            for kind in kinds:
                build_trial_config(config, {KIND: kind, path: value})


def _list_method_kinds(config: RunConfig) -> list[str]:
    """The methods that a trial may have."""
    space = config.sweep.space
    kinds = [str(kind) for kind in list_ends(space.get(KIND, [config.method.kind]))]
    for method in list_ends(space.get(METHOD, [])):
        kinds.append(str(method.get("kind", "")) if isinstance(method, Mapping) else str(method))
    if unknown := [kind for kind in kinds if kind not in METHODS]:
        raise ConfigError(
            f"no such method as {unknown[0]!r}", where=f"sweep.space, {METHOD}", fix=f"There are {', '.join(METHODS)}."
        )
    return list(dict.fromkeys(kinds))


def list_ends(values: Range | Sequence[Any]) -> list[Any]:
    """The values of a list, or the two ends of a range."""
    return [values.low, values.high] if isinstance(values, Range) else list(values)


def build_trial_config(config: RunConfig, values: Values) -> RunConfig:
    """The configuration of a trial. Another method takes no options of the configuration's method over.

    An option of `method` that the trial's method does not have is left out. Raises ConfigError for values that the
    configuration does not accept.
    """
    return set_values(config, select_values(config, values))


def select_values(config: RunConfig, values: Values) -> dict[str, Any]:
    """The values that apply to the trial's method, those of the method as a whole first."""
    selected = {path: value for path, value in values.items() if path not in (METHOD, KIND)}
    method = values.get(METHOD, {"kind": values[KIND]} if KIND in values else {})
    kind = method.get("kind", config.method.kind)
    options = set(list_option_names(METHODS[kind])) if kind in METHODS else set()
    for path in list(selected):
        section, _, name = path.partition(".")
        if section == METHOD and name.partition(".")[0] not in options:
            del selected[path]
    return ({METHOD: method} if METHOD in values or kind != config.method.kind else {}) | selected
