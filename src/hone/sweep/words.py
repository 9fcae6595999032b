"""The values of a trial in words, for tables, logs and names of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def describe_values(values: Mapping[str, Any]) -> str:
    """`learning_rate 0.000213, rank 8`: the last part of each path, or more of it where two fields share that."""
    return ", ".join(f"{name} {format_value(values[path])}" for path, name in shorten(values).items())


def shorten(paths: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """A short name for each path: its last part, the whole path where another one has the same."""
    last = {path: path.rpartition(".")[2] if path != "method.kind" else "method" for path in paths}
    names = list(last.values())
    return {path: name if names.count(name) == 1 else path for path, name in last.items()}


def format_value(value: Any) -> str:
    """A value for a table."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        kind, *options = (
            f"{name} {format_value(inner)}" if name != "kind" else str(inner) for name, inner in value.items()
        )
        return f"{kind} ({', '.join(options)})" if options else kind
    return str(value)
