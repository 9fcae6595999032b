"""Timestamps of rows, and the point in time as of which a source is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

# Seconds in 1973 and 2286, the numbers of 9 and 10 digits. Smaller ones are years or months (2024, 202401), or a 0 that
# stands for no time; in the same time milliseconds have 12 and 13 digits, and so on.
_EARLIEST, _LATEST = 1e8, 1e10
_MINUTE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])([01]\d|2[0-3])[0-5]\d")  # 202401311230
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")

AS_OF = "{as_of}"  # placeholder in a source's paths or query for the as-of date


def last_moment(as_of: date | datetime) -> datetime:
    """The last moment included: the end of a date (UTC), or a datetime itself (UTC unless it has a zone)."""
    if isinstance(as_of, datetime):
        return as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    return datetime.combine(as_of, time.max, UTC)


def parse_time(value: Any) -> datetime:
    """Parse a row's time: ISO 8601 (a date or a month means its start) or a number since 1970; UTC without a zone.

    A number is in seconds, milliseconds, microseconds or nanoseconds: those between 1973 and 2286 differ in their
    number of digits. Raises ValueError for anything else, such as 202401, which is no such number.
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
    if _MONTH.fullmatch(text):
        return datetime.fromisoformat(f"{text}-01")
    message = f"{text[:40]!r} is not a time: use ISO 8601 (2024-01-31) or seconds since 1970"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(message) from None
    if _MINUTE.fullmatch(text):
        raise ValueError(f"{text} is not a time: milliseconds since 1970, or a date and time without separators?")
    for unit in (1, 1e3, 1e6, 1e9):
        if _EARLIEST <= number / unit < _LATEST:
            return datetime.fromtimestamp(number / unit, UTC)
    raise ValueError(message)
