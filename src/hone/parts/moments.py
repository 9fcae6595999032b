"""Timestamps of rows, and the point in time as of which a source is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

AS_OF = "{as_of}"  # placeholder in a source's paths or query for the as-of date


def last_moment(as_of: date | datetime) -> datetime:
    """The last moment included: the end of a date (UTC), or a datetime itself (UTC unless it has a zone)."""
    if isinstance(as_of, datetime):
        return as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    return datetime.combine(as_of, time.max, UTC)


def parse_time(value: Any) -> datetime:
    """Parse a row's time: ISO 8601 (a date means its start) or seconds since 1970; UTC unless a zone is given.

    Raises ValueError for anything else.
    """
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, time.min)
    elif isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a time")
    else:
        moment = _parse_text(str(value).strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def fill_as_of(options: Mapping[str, Any], as_of: date | datetime | None) -> dict[str, Any]:
    """A source's options with `{as_of}` replaced by the date, or by today's date (UTC) if `as_of` is None."""
    as_of_text = (as_of or datetime.now(UTC).date()).isoformat()
    return {name: _fill(value, as_of_text) for name, value in options.items()}


def _fill(value: Any, as_of_text: str) -> Any:
    if isinstance(value, str):
        return value.replace(AS_OF, as_of_text)
    if isinstance(value, list | tuple):
        return type(value)(_fill(inner, as_of_text) for inner in value)
    if isinstance(value, dict):
        return {name: _fill(inner, as_of_text) for name, inner in value.items()}
    return value


def _parse_text(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:40]!r} is not a time: use ISO 8601 or seconds since 1970") from None
