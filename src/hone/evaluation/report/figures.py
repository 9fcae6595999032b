"""Numbers formatted for people: thousands grouped, shares in percent, a dash if there is no number."""

from __future__ import annotations

import math
import re
from typing import Any

View = dict[str, Any]  # what a template shows, by name

NONE = "–"
NO_ROW_DIFFERS = "no row differs"  # in place of the interval of a difference that is 0 on every resample
MINUS = "−"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """A whole number with its thousands grouped: 38,112."""
    return f"{value:,.0f}".replace("-", MINUS) if _is_number(value) else NONE


def percent(value: Any, digits: int = 1) -> str:
    """A share of 1 in percent: 69.4%."""
    return f"{100 * value:.{digits}f}%".replace("-", MINUS) if _is_number(value) else NONE


def shown(figure: dict[str, Any]) -> str:
    """A figure's `value`, in percent unless it is marked as no share: 69.4%, 12.3."""
    return percent(figure["value"]) if figure.get("share", True) else number(figure["value"])


def has_width(low: Any, high: Any) -> bool:
    """Whether an interval has a width beyond rounding; one without is of rows that are all alike, and says nothing."""
    return _is_number(low) and _is_number(high) and high - low > 1e-12 * max(1, abs(low), abs(high))


def interval(figure: dict[str, Any]) -> str:
    """A figure's `low` and `high`, in percent unless it is no share: 64.1–74.2%, −0.2 to 0.4; '' if it has none."""
    low: Any = figure.get("low")
    high: Any = figure.get("high")
    if not has_width(low, high):
        return ""
    dash = " to " if low < 0 else "–"
    if not figure.get("share", True):
        return f"{number(low)}{dash}{number(high)}"
    return f"{percent(low).rstrip('%')}{dash}{percent(high)}"


def points(value: Any, share: bool = True) -> str:
    """A signed difference; of two shares in percentage points: +10.1."""
    if not _is_number(value):
        return NONE
    if not share:
        return ("+" if value > 0 else "") + number(value)
    return f"{100 * value:+.1f}".replace("-", MINUS)


def difference_interval(figure: dict[str, Any], between: str = "between {} and {}") -> str:
    """`low` and `high` of a paired difference in the words `between`; NO_ROW_DIFFERS for 0 without width, '' for others
    without."""
    low, high, share = figure["low"], figure["high"], figure.get("share", True)
    if has_width(low, high):
        return between.format(points(low, share), points(high, share))
    return "" if has_width(0, abs(figure["difference"])) else NO_ROW_DIFFERS


def amount_interval(figure: dict[str, Any]) -> str:
    """The `low` and `high` of a difference's size, of two shares in percentage points: 11.0–70.5."""
    return interval(figure).removesuffix("%")


def amount(value: Any, share: bool = True) -> str:
    """The size of a difference: 10.1 points, or a plain number if it is not one of shares."""
    return points(abs(value), share).replace("+", "") + (" points" if share else "") if _is_number(value) else NONE


def p_value(value: Any) -> str:
    """A p-value with its relation: p = 0.021, p < 0.001."""
    if not _is_number(value):
        return ""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def counted(value: Any, noun: str) -> str:
    """A number of things: 1 row, 32,033 rows."""
    return f"{count(value)} {noun}{'s' * (value != 1)}"


def device(name: Any) -> str:
    """The name of a device as training stores it: cpu, 1 thread."""
    return re.sub(r"\b1 threads$", "1 thread", str(name or ""))


def number(value: Any) -> str:
    """Any number with at most four significant digits, thousands grouped."""
    if not _is_number(value):
        return NONE
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", MINUS)
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    digits = 2 if abs(value) < 1e-3 else 4
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("-", MINUS)


def quantity(value: Any) -> str:
    """A large count, abbreviated: 22.7 million."""
    if not _is_number(value):
        return NONE
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {word}"
    return count(value)


def duration(seconds: Any) -> str:
    """A duration in a suitable unit: 640 ms, 41.2 s, 12 min 5 s, 3 h 12 min."""
    if not _is_number(seconds):
        return NONE
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: Any) -> str:
    """A number of bytes in powers of 1000: 91.2 MB."""
    if not _is_number(n_bytes):
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"


def clip(text: object, limit: int) -> str:
    """The text, cut to `limit` characters, with the number of characters that were cut."""
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(shown) - limit:,} more characters)"


def words(name: str) -> str:
    """An identifier as words: label_conflicts -> Label conflicts."""
    text = str(name).replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]


def within_sentence(title: str) -> str:
    """A title without its capital, unless that is a symbol's: Entity F1 -> entity F1, R² -> R²."""
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def plain(value: Any) -> str:
    """Any JSON value on one line: what an expectation observed or expected."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, dict):
        return ", ".join(f"{str(key).replace('_', ' ')} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(plain(inner) for inner in value[:8])
        return shown if len(value) <= 8 else f"{shown} and {len(value) - 8} more"
    return str(value)
