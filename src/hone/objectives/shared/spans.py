"""Spans of a text: which characters their offsets mean, and whether they begin and end between words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from hone.objectives.shared.annotations import Mark
from hone.writing_systems import has_open_words

Unit = Literal["characters", "utf-16", "bytes"]

UNITS: tuple[Unit, ...] = ("characters", "utf-16", "bytes")
# How offsets may have been meant that cut words: what to say of them, and how to read them.
_OTHER_READINGS: dict[str, Callable[[str, Mark], tuple[int, int] | None]] = {
    "utf-16": lambda text, mark: convert_offsets(text, mark, "utf-16"),
    "bytes": lambda text, mark: convert_offsets(text, mark, "bytes"),
    "counted from 1": lambda text, mark: (mark.start - 1, mark.end - 1),
    "with the end included": lambda text, mark: (mark.start, mark.end + 1),
}


class Span(NamedTuple):
    """Characters `start` to `end`, the latter not among them, of a text, and their label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class SpanReading:
    """The spans of a text, and what is known of their offsets.

    unit       what the offsets count
    is_proved  whether the spans' own texts show that they count this and nothing else
    is_open    whether other units would give other spans, and nothing shows which is meant
    cut_words  the marks that begin or end inside a word, without a text of their own that shows that they are meant to
    """

    spans: list[Span]
    unit: Unit
    is_proved: bool
    is_open: bool
    cut_words: list[Mark]


def read_spans(text: str, marks: Sequence[Mark], offsets: Literal["auto"] | Unit = "auto") -> SpanReading:
    """The spans that the marks of a text are. With `offsets` auto their own texts decide what is counted.

    Raises ValueError for a mark that is not inside the text, or is not where its own text is.
    """
    units = UNITS if offsets == "auto" else (offsets,)
    extents_by_unit = {unit: [convert_offsets(text, mark, unit) for mark in marks] for unit in units}
    fitting = [unit for unit, extents in extents_by_unit.items() if _agree(text, marks, extents)]
    unit = fitting[0] if fitting else units[0]
    spans = [
        _check_mark(text, mark, extent, index)
        for index, (mark, extent) in enumerate(zip(marks, extents_by_unit[unit], strict=True))
    ]
    others = [other for other, extents in extents_by_unit.items() if extents != extents_by_unit[unit]]
    rivals = [other for other in others if other in fitting and None not in extents_by_unit[other]]
    return SpanReading(
        spans=spans,
        unit=unit,
        is_proved=bool(others) and not rivals and any(mark.text is not None for mark in marks),
        is_open=bool(rivals),
        cut_words=[
            mark
            for mark, span in zip(marks, spans, strict=True)
            if mark.text is None and (is_inside_word(text, span.start) or is_inside_word(text, span.end))
        ],
    )


def convert_offsets(text: str, mark: Mark, unit: Unit) -> tuple[int, int] | None:
    """The characters that a mark means if it counts in `unit`; None where it lies outside or cuts a character."""
    start, end = convert_positions(text, (mark.start, mark.end), unit)
    return (start, end) if start is not None and end is not None and start < end else None


def convert_positions(text: str, offsets: Sequence[int], unit: Unit) -> list[int | None]:
    """The characters that offsets in `unit` mean; None for one that lies outside or inside a character."""
    if unit == "characters" or text.isascii():
        return [offset if 0 <= offset <= len(text) else None for offset in offsets]
    sizes = (len(sign.encode(_ENCODINGS[unit], "surrogatepass")) // _WIDTHS[unit] for sign in text)
    position = {offset: index for index, offset in enumerate(accumulate(sizes, initial=0))}
    return [position.get(offset) for offset in offsets]


_ENCODINGS = {"utf-16": "utf-16-le", "bytes": "utf-8"}
_WIDTHS = {"utf-16": 2, "bytes": 1}


def is_inside_word(text: str, index: int) -> bool:
    """Whether a cut before the character `index` parts two letters, or two digits, of one word.

    Never in scripts without spaces between words.
    """
    if not 0 < index < len(text):
        return False
    before, after = _kind(text[index - 1]), _kind(text[index])
    return before != "" and before == after


def list_readings(text: str, marks: Sequence[Mark]) -> list[str]:
    """The ways to read offsets, by name, with which none of the marks cuts a word."""
    return [
        name
        for name, convert in _OTHER_READINGS.items()
        if not any(
            extent is None or is_inside_word(text, extent[0]) or is_inside_word(text, extent[1])
            for extent in (convert(text, mark) for mark in marks)
        )
    ]


def describe_span(span: Span, text: str) -> str:
    """A span for people: label, offsets and text."""
    return f"{span.label} {span.start}-{span.end} {text[span.start : span.end]!r:.40}"


def _kind(sign: str) -> str:
    """letter (with its marks), digit, or '' for what is part of no word or of one without spaces around it."""
    if has_open_words(sign):
        return ""
    category = unicodedata.category(sign)[0]
    return {"L": "letter", "M": "letter", "N": "digit"}.get(category, "")


def _agree(text: str, marks: Sequence[Mark], extents: Sequence[tuple[int, int] | None]) -> bool:
    """Whether each mark with a text of its own is where that text is; spacing does not count."""
    return all(
        extent is not None and _same(text[extent[0] : extent[1]], mark.text)
        for mark, extent in zip(marks, extents, strict=True)
        if mark.text is not None
    )


def _same(first: str, second: str) -> bool:
    return first == second or first.split() == second.split()


def _check_mark(text: str, mark: Mark, extent: tuple[int, int] | None, index: int) -> Span:
    if extent is None:
        fitting = [unit for unit in UNITS[1:] if convert_offsets(text, mark, unit)]
        hint = f"; if it counts {fitting[0]}, set objective.offsets" if fitting else ""
        size = f"{len(text)} characters of the text"
        raise ValueError(f"spans: {mark.start} to {mark.end} of item {index} is not inside the {size}{hint}")
    span = Span(*extent, mark.label)
    if mark.text is not None and not _same(text[span.start : span.end], mark.text):
        place = text.find(mark.text) if mark.text else -1
        hint = f"; that is at {place}-{place + len(mark.text)}" if place >= 0 else ""
        raise ValueError(f"spans: {describe_span(span, text)} is not its own text {mark.text!r:.40}{hint}")
    return span
