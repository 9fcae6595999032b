"""Loading a configuration: a YAML file and `section.field=value` overrides.

All errors are reported at once, with the field names used in the file.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hone.config.sections import RunConfig
from hone.display import mask_secrets
from hone.errors import ConfigError
from hone.parts.strict_yaml import load_yaml


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Load the configuration in the YAML file `path` and apply `section.field=value` overrides.

    Raises ConfigError that lists all errors: the field, the file, and the closest valid name.
    """
    try:
        tree = load_yaml(path.read_text("utf8"))
    except (FileNotFoundError, IsADirectoryError):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        fix = f"Did you mean {path.parent / near[0]}?" if near else "Name a YAML file, such as conf/demo.yaml."
        raise ConfigError("no such configuration file", where=str(path), fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        fix = "Correct the line; texts with special characters belong in quotes."
        raise ConfigError(f"is not YAML: {fault}", where=str(path), fix=fix) from None
    if not isinstance(tree, dict):
        raise ConfigError("has no sections", where=str(path), fix="Start from conf/demo.yaml.")
    return _parse_changed(tree, overrides, str(path))


def change_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The configuration with `section.field=value` overrides; raises ConfigError as `load_config` does."""
    return _parse_changed(config.model_dump(mode="json", exclude_unset=True), overrides, config.name)


def set_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The configuration with other values of the fields with these dotted paths; raises ConfigError likewise."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    for path, value in values.items():
        _set(tree, path, value, path)
    return parse_config(tree, config.name)


def parse_config(tree: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """Build the configuration from nested dicts and lists; raises ConfigError as `load_config` does."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as fault:
        faults = [mask_secrets(_describe(error)) for error in fault.errors()]
        count = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
        raise ConfigError(
            f"{count} in the configuration\n" + "\n".join(f"  {line}" for line in dict.fromkeys(faults)),
            where=where,
            fix="`hone schema` prints every field, its meaning and its bounds.",
        ) from None


def _parse_changed(tree: dict[str, Any], overrides: Sequence[str], where: str) -> RunConfig:
    for override in overrides:
        _override(tree, override)
    return parse_config(tree, where)


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, including every default."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _override(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError("is not of the form section.field=value", where=override)
    _set(tree, path, _value(value, override), override)


def _set(tree: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Set the field `path` in a tree of plain values; `where` is named in errors."""
    *parents, field_name = path.split(".")
    target: Any = tree
    models: list[type[BaseModel]] = [RunConfig]
    for name in parents:
        if isinstance(target, list):
            target = target[_index(target, name, where)]
        else:
            fields = [model.model_fields[name] for model in models if name in model.model_fields]
            target = target.setdefault(name, _written_out(fields))
            models = [inner for field in fields for inner in _models(field)]
        if not isinstance(target, (dict, list)):
            raise ConfigError(f"{name} is a value and has no fields", where=where)
    target[_index(target, field_name, where) if isinstance(target, list) else field_name] = value


def _value(text: str, override: str) -> Any:
    """The value of an override, written as in YAML; what YAML reserves for itself (`*.csv`, `@x`) is text here."""
    if text.startswith(("*", "&", "@", "`", "%")):
        return text
    try:
        return load_yaml(text)
    except yaml.YAMLError as fault:
        problem = getattr(fault, "problem", None) or getattr(fault, "reason", None) or fault
        raise ConfigError(
            f"the value is not YAML: {problem}",
            where=override,
            fix="Put it in quotes if it is text: 'field=\"value\"'.",
        ) from None


def _written_out(fields: Sequence[Any]) -> Any:
    """The value of a field that the file leaves out, for an override to change: its default list or part, else {}."""
    defaults = [field.get_default(call_default_factory=True) for field in fields]
    return next((copy.deepcopy(default) for default in defaults if isinstance(default, (list, dict))), {})


def _index(items: list[Any], name: str, override: str) -> int:
    """The index of a list item, given as a number or, for parts, as its `kind`."""
    kinds = [item.get("kind") if isinstance(item, dict) else None for item in items]
    for kind in (name, name.replace("_", "-")):
        if kind in kinds:
            return kinds.index(kind)
    if name.isdecimal() and name.isascii() and int(name) < len(items):
        return int(name)
    raise ConfigError(f"no item {name} among {len(items)}", where=override)


def _describe(error: Any) -> str:
    """One line for one error: the field's dotted path and the problem."""
    names, models = _walk(error["loc"])
    path = ".".join(names)
    if error["type"] == "extra_forbidden":
        field_names = [field for model in models for field in model.model_fields]
        close_names = difflib.get_close_matches(names[-1], field_names, 1, cutoff=0.5)
        hint = f"did you mean {close_names[0]}?" if close_names else f"there are {', '.join(field_names)}"
        return f"{path}: no such field; {hint}"
    if error["type"] in ("union_tag_invalid", "literal_error"):
        expected = error["ctx"].get("expected_tags") or error["ctx"].get("expected", "")
        choices = [choice.strip(" '") for choice in expected.replace(" or ", ", ").split(",")]
        choice = error["ctx"].get("tag", error["input"])
        close_names = difflib.get_close_matches(str(choice), choices, 1, cutoff=0.5)
        hint = f"did you mean {close_names[0]}?" if close_names else f"there are {', '.join(choices)}"
        return f"{path}: no such choice as {choice}; {hint}"
    if error["type"] == "missing":
        return f"{path}: is required"
    if error["type"] == "union_tag_not_found":
        return f"{path}: kind is missing"
    if error["type"] == "value_error":  # a whole section is too long to show
        value_suffix = f", not {error['input']!r}" if isinstance(error["input"], str) else ""
        return f"{path}: {error['ctx']['error']}{value_suffix}"
    if error["type"] == "string_type" and isinstance(error["input"], bool | int | float | date):
        return f"{path}: YAML reads this as {error['input']}, not as text: put it in quotes"
    message = error["msg"][:1].lower() + error["msg"][1:]
    return f"{path}: {message.removeprefix('input ')}, not {error['input']!r}"


def _walk(loc: Iterable[str | int]) -> tuple[list[str], list[type[BaseModel]]]:
    """The field names along an error's location, without union tags, and the models that contain the last one."""
    names: list[str] = []
    models: list[type[BaseModel]] = [RunConfig]
    models_at_end = models
    for step in loc:
        tagged = [m for m in models if "kind" in m.model_fields and step in get_args(m.model_fields["kind"].annotation)]
        if tagged:
            models = tagged
            continue
        names.append(str(step))
        models_at_end = models
        if isinstance(step, str):
            models = [
                inner for model in models if step in model.model_fields for inner in _models(model.model_fields[step])
            ]
    return names, models_at_end


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that a field's annotation mentions."""
    annotation = getattr(annotation, "annotation", annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
