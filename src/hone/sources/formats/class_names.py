"""The names of classes that `datasets` stores as numbers, from its description of a data set's columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hone.sources.source import Unreadable

Namer = Callable[[Any], Any]


def find_class_names(features: Mapping[str, Any]) -> dict[str, Namer]:
    """For each column with class numbers, also in lists and objects, the function that replaces them by names.

    `features` is `datasets.Features` as `to_dict()` and Parquet metadata have it. A function gives None for -1, which
    stands for an unknown class, and raises ValueError for a number without a name.
    """
    namers = {column: _namer(feature) for column, feature in features.items()}
    return {column: namer for column, namer in namers.items() if namer}


def name_classes(values: dict[str, Any], namers: Mapping[str, Namer]) -> dict[str, Any]:
    """The row with class numbers replaced by names; `Unreadable` where a number has none."""
    for column, namer in namers.items():
        if column in values:
            try:
                values[column] = namer(values[column])
            except ValueError as fault:
                values[column] = Unreadable(str(fault))
    return values


def _namer(feature: Any) -> Namer | None:
    """The function for a feature; None if there are no classes in it."""
    if isinstance(feature, list):  # a list of features of one kind, as older releases write it
        return _each(_namer(feature[0])) if feature else None
    if not isinstance(feature, Mapping):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        return _class_name(names) if isinstance(names, list) else None
    if kind in ("Sequence", "List", "LargeList"):
        return _each(_namer(feature.get("feature")))
    if isinstance(kind, str):
        return None
    namers = find_class_names(feature)
    return (lambda value: _name_fields(value, namers) if isinstance(value, dict) else value) if namers else None


def _name_fields(value: dict[str, Any], namers: Mapping[str, Namer]) -> dict[str, Any]:
    return value | {column: namer(value[column]) for column, namer in namers.items() if column in value}


def _each(namer: Namer | None) -> Namer | None:
    """The function for a list of what `namer` is for; a Sequence of objects is stored as an object of lists."""
    if namer is None:
        return None

    def name_items(value: Any) -> Any:
        if isinstance(value, dict):
            rows = [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
            return {column: [namer(row)[column] for row in rows] for column in value}
        return [namer(item) for item in value] if isinstance(value, list) else value

    return name_items


def _class_name(names: list[str]) -> Namer:
    def name_class(value: Any) -> Any:
        if value is None or value == -1:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(names):
            raise ValueError(f"class {value} has no name: there are {len(names)}")
        return names[value]

    return name_class
