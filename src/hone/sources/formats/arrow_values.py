"""The values of Arrow columns in Python, where some have none there."""

from __future__ import annotations

from typing import Any

from hone.sources.source import Unreadable


def list_values(column: Any) -> list[Any]:
    """A column's values as Python has them, `Unreadable` where it has none; times of an unknown zone are in UTC."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.tz:
        try:
            pa.scalar(0, column.type).as_py()
        except (KeyError, ValueError):  # an unknown zone; the instants themselves are stored in UTC
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raise
    except (OverflowError, KeyError, ValueError):
        values = [_read_value(scalar) for scalar in column]
    return values


def _read_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, KeyError, ValueError) as fault:
        return Unreadable(f"{scalar.type} that cannot be expressed ({fault})")
