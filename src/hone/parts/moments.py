"""When rows came, and as of which moment a source is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

AS_OF = "{as_of}"  # in a source's paths or query: the date as of which it is read


def end_of(as_of: date | datetime) -> datetime:
    """The last moment that counts: of a date its end, in UTC; of a moment itself, in UTC where it says no zone."""
    if isinstance(as_of, datetime):
        return as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    return datetime.combine(as_of, time.max, UTC)


def when(value: Any) -> datetime:
    """A row's time: ISO 8601 (a date is its first moment), or seconds since 1970; UTC where it says no zone.

    Raises ValueError at anything else.
    """
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime.combine(value, time.min)
    elif isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no time")
    else:
        found = _read(str(value).strip())
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def dated(options: Mapping[str, Any], as_of: date | datetime | None) -> dict[str, Any]:
    """A source's options with `{as_of}` read as that date, today's (UTC) where there is none."""
    shown = (as_of or datetime.now(UTC).date()).isoformat()
    return {name: _filled(value, shown) for name, value in options.items()}


def _filled(value: Any, shown: str) -> Any:
    if isinstance(value, str):
        return value.replace(AS_OF, shown)
    if isinstance(value, list | tuple):
        return type(value)(_filled(inner, shown) for inner in value)
    if isinstance(value, dict):
        return {name: _filled(inner, shown) for name, inner in value.items()}
    return value


def _read(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:40]!r} is no time: write ISO 8601, or seconds since 1970") from None
