"""A row's columns under the objective's names: renamed, and taken out of nested values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def rename_columns(values: Mapping[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    """The row with its columns under the names that `rename` (objective's name: source's name) gives them.

    A source's name may lead into nested values: `data.text`, `annotations.0.result`. A column of ours that the source
    has under the same name with another meaning is replaced; one whose source is not in the row is left out.
    """
    renamed = {name: value for name, value in values.items() if name not in rename}
    for ours, theirs in rename.items():
        if has_column(values, theirs):
            renamed[ours] = _walk(values, theirs)[0]
    return renamed


def has_column(values: Mapping[str, Any], name: str) -> bool:
    """Whether the row has a column of that name, or a nested value at that path."""
    return bool(_walk(values, name))


def _walk(value: Any, path: str) -> list[Any]:
    """The value at a path of names and indexes, in a list; [] where there is none.

    Names may have dots in them, as argilla's have: the longest name that is there is taken.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = _parse(value)
    for name, rest in _cut(path):
        inner = _get(value, name)
        if inner and not rest:
            return inner
        if inner and (deeper := _walk(inner[0], rest)):
            return deeper
    return []


def _cut(path: str) -> Iterable[tuple[str, str]]:
    """The path as a first name and what follows, for every dot at which it can be cut; the longest name first."""
    names = path.split(".")
    return ((".".join(names[:count]), ".".join(names[count:])) for count in range(len(names), 0, -1))


def _get(value: Any, name: str) -> list[Any]:
    if isinstance(value, Mapping):
        return [value[name]] if name in value else []
    if isinstance(value, Sequence) and not isinstance(value, str) and name.isdecimal():
        return list(value[int(name) : int(name) + 1])
    return []


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
