"""The forms in which data says which labels a text has."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from hone.objectives.shared.json_cells import load_json

_BITS = {"0": False, "false": False, "0.0": False, "1": True, "true": True, "1.0": True}


def parse_label_names(value: Any, separator: str) -> list[str]:
    """The labels in a value of the column `labels`: a list, or text that is one or has the separator in it.

    Raises ValueError at anything else, null among it.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            value = _list(text)
        elif separator:
            return [name.strip() for name in text.split(separator) if name.strip()]
        elif text:
            raise ValueError(f"labels is no list: {text[:60]!r} (objective.separator says what parts labels in a text)")
        else:
            return []
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"labels is neither a list nor a text: {value!r}")
    return [_name(item) for item in value]


def _list(text: str) -> Any:
    """The list that a text writes in JSON, or as Python does."""
    try:
        return load_json(text)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if repr(value) != text:  # ['a' 'b'], which numpy writes, is to Python the one name ab
        raise ValueError(f"labels is no list in JSON: {text[:60]}")
    return value


def _name(item: Any) -> str:
    if isinstance(item, bool) or not isinstance(item, (str, int)) or not str(item).strip():
        raise ValueError(f"labels holds something that is no name: {item!r}")
    return str(item).strip()


def has_label(values: Mapping[str, Any], name: str) -> bool:
    """Whether the column `name` says 1. Raises ValueError where it is not there, and where it says neither 1 nor 0."""
    if name not in values:
        raise ValueError(f"there is no column {name}")
    bit = _BITS.get(str(values[name]).strip().lower())
    if bit is None:
        raise ValueError(f"{name} is neither 0 nor 1: {values[name]!r}")
    return bit
