"""What the spans of all rows show together: what their offsets count, and whether they cut words."""

from __future__ import annotations

from collections import Counter

from hone.errors import DataError
from hone.objectives.shared.annotations import Mark
from hone.objectives.shared.spans import UNITS, SpanReading, describe_span, list_readings

_WHERE = "the column of spans"


class SpanAccount:
    """Counts spans by what their offsets count; at most the share `max_subword` may begin or end inside a word."""

    def __init__(self, max_subword: float) -> None:
        self._max_subword = max_subword
        self._spans, self._cut_words, self._open_rows = 0, 0, 0
        self._units: Counter[str] = Counter()
        self._readings: Counter[str] = Counter()
        self._example = ""

    def add(self, text: str, marks: list[Mark], reading: SpanReading) -> None:
        """Count the spans of a text."""
        self._spans += len(marks)
        self._units[reading.unit] += reading.is_proved
        self._open_rows += reading.is_open
        self._cut_words += len(reading.cut_words)
        if reading.cut_words:
            self._readings.update(list_readings(text, reading.cut_words))
            span = reading.spans[marks.index(reading.cut_words[0])]
            self._example = self._example or f"{describe_span(span, text)} in {text!r:.80}"

    def check(self) -> None:
        """Raises DataError if it is not clear what offsets count, or if too many spans cut words."""
        units = self._list_units()
        if units and self._open_rows:
            raise DataError(
                f"the spans' own texts show that offsets count {' or '.join(units)} in {self._units[units[0]]} rows; "
                f"{self._open_rows} other rows, whose spans have no text, would be read in characters",
                where=_WHERE,
                fix=f"Set objective.offsets: {units[0]}, for all rows.",
            )
        if self._cut_words > self._max_subword * self._spans:
            raise DataError(
                f"{self._cut_words} of {self._spans} spans ({self._cut_words / self._spans:.1%}) begin or end inside a "
                f"word, as wrong offsets do: {self._example}",
                where=_WHERE,
                fix=f"{self._suggest_reading()}If parts of words are meant, set objective.max_subword_spans: 1.",
            )

    def list_notes(self) -> dict[str, int]:
        """What was converted and what is odd, counted."""
        notes = {f"texts whose span offsets count {unit}, converted": self._units[unit] for unit in self._list_units()}
        return notes | ({"spans that begin or end inside a word": self._cut_words} if self._cut_words else {})

    def _list_units(self) -> list[str]:
        """The units other than characters that some rows are proved to count in, the most frequent first."""
        return [unit for unit, rows in self._units.most_common() if rows and unit != "characters"]

    def _suggest_reading(self) -> str:
        """What offsets seem to mean where another reading leaves more words whole."""
        if not self._readings:
            return "Correct the offsets. "
        reading, rows = self._readings.most_common(1)[0]
        advice = f"set objective.offsets: {reading}" if reading in UNITS else "correct them"
        return f"No word would be cut in {rows} of these rows if offsets were {reading}: then {advice}. "
