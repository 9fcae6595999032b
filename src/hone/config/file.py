"""A configuration as a person writes it: a YAML file and `section.field=value` overrides.

Every fault is answered at once, by the names that the person wrote.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hone.config.sections import RunConfig
from hone.errors import ConfigError


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in the YAML file `path`, changed by `section.field=value` overrides.

    Raises ConfigError that names every fault at once: the field, the file, and the nearest valid name.
    """
    try:
        tree = yaml.load(path.read_text("utf8"), Loader=_Loader)
    except (FileNotFoundError, IsADirectoryError):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        fix = f"Did you mean {path.parent / near[0]}?" if near else "Name a YAML file, such as conf/demo.yaml."
        raise ConfigError("there is no such configuration file", where=str(path), fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(f"is not YAML: {fault}", where=str(path)) from None
    if not isinstance(tree, dict):
        raise ConfigError("holds no sections", where=str(path), fix="Start from conf/demo.yaml.")
    for override in overrides:
        _override(tree, override)
    return parse(tree, str(path))


def parse(tree: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """The configuration in a tree of plain values; raises ConfigError as `load` does."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as fault:
        faults = [_describe(error) for error in fault.errors()]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError(
            f"{count} in the configuration\n" + "\n".join(f"  {line}" for line in dict.fromkeys(faults)),
            where=where,
            fix="`hone schema` prints every field, its meaning and its bounds.",
        ) from None


def dump(config: RunConfig) -> str:
    """The resolved configuration as YAML, every default written out."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key that stands twice is a fault, and 5e-5 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _override(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError("is not of the form section.field=value", where=override)
    *parents, last = path.split(".")
    at: Any = tree
    models: list[type[BaseModel]] = [RunConfig]
    for name in parents:
        if isinstance(at, list):
            at = at[_index(at, name, override)]
        else:
            fields = [model.model_fields[name] for model in models if name in model.model_fields]
            at = at.setdefault(name, _written_out(fields))
            models = [inner for field in fields for inner in _models(field)]
        if not isinstance(at, (dict, list)):
            raise ConfigError(f"{name} is a value and has no fields", where=override)
    at[_index(at, last, override) if isinstance(at, list) else last] = yaml.load(value, Loader=_Loader)


def _written_out(fields: Sequence[Any]) -> Any:
    """What stands where a file is silent, for an override to change: default steps, a default part, or nothing yet."""
    defaults = [field.get_default(call_default_factory=True) for field in fields]
    return next((copy.deepcopy(given) for given in defaults if isinstance(given, (list, dict))), {})


def _index(items: list[Any], name: str, override: str) -> int:
    """The position of a list's item, given by number or, for parts, by its `kind`."""
    kinds = [item.get("kind") if isinstance(item, dict) else None for item in items]
    for kind in (name, name.replace("_", "-")):
        if kind in kinds:
            return kinds.index(kind)
    if name.isdigit() and int(name) < len(items):
        return int(name)
    raise ConfigError(f"{name} is none of the {len(items)} items", where=override)


def _describe(error: Any) -> str:
    """One line on one fault: the field's path as a person would type it, and what is wrong."""
    names, models = _walk(error["loc"])
    path = ".".join(names)
    if error["type"] == "extra_forbidden":
        known = [field for model in models for field in model.model_fields]
        near = difflib.get_close_matches(names[-1], known, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return f"{path}: no such field; {hint}"
    if error["type"] in ("union_tag_invalid", "literal_error"):
        expected = error["ctx"].get("expected_tags") or error["ctx"].get("expected", "")
        choices = [choice.strip(" '") for choice in expected.replace(" or ", ", ").split(",")]
        given = error["ctx"].get("tag", error["input"])
        near = difflib.get_close_matches(str(given), choices, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
        return f"{path}: no such choice as {given}; {hint}"
    if error["type"] == "missing":
        return f"{path}: is required"
    if error["type"] == "union_tag_not_found":
        return f"{path}: says no kind"
    if error["type"] == "value_error":  # of a whole section, which may hold a password, nothing is shown
        shown = f", not {error['input']!r}" if isinstance(error["input"], str) else ""
        return f"{path}: {error['ctx']['error']}{shown}"
    message = error["msg"][:1].lower() + error["msg"][1:]
    return f"{path}: {message.removeprefix('input ')}, not {error['input']!r}"


def _walk(loc: Iterable[str | int]) -> tuple[list[str], list[type[BaseModel]]]:
    """The names along an error's location, without the tags of unions, and the models around its end."""
    names: list[str] = []
    models: list[type[BaseModel]] = [RunConfig]
    around = models
    for step in loc:
        tagged = [m for m in models if "kind" in m.model_fields and step in get_args(m.model_fields["kind"].annotation)]
        if tagged:
            models = tagged
            continue
        names.append(str(step))
        around = models
        if isinstance(step, str):
            models = [
                inner for model in models if step in model.model_fields for inner in _models(model.model_fields[step])
            ]
    return names, around


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that a field's annotation mentions."""
    annotation = getattr(annotation, "annotation", annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
