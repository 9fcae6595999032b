"""The interface of a curation step: options in, a verdict on each row out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa


class Fields(Protocol):
    """The columns of rows that a step may look at, and how their texts are read and rewritten: objectives say it."""

    @property
    def text(self) -> tuple[str, ...]:
        """The columns with text."""

    @property
    def label(self) -> str:
        """The column with the class, '' for none."""

    def texts(self, rows: pa.Table) -> list[str]:
        """Each row as a person reads it."""

    def pieces(self, column: str, value: str) -> list[str]:
        """The texts in one value of a text column."""

    def joined(self, column: str, value: str, pieces: list[str]) -> str:
        """The value with its texts rewritten."""

    def mend(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """The rewritten rows with what points into their texts pointing there again; '' or a reason to drop each."""

    def strata(self, rows: pa.Table) -> list[str]:
        """The kind of each row, of which every split is to have its share."""


@dataclass(frozen=True)
class Verdict:
    """The result of a step for a table of n rows.

    `rows`: the n rows in the same order, with possibly rewritten texts. `reasons`: n entries; '' keeps the row, a
    short lower-case phrase drops it ("shorter than 20 characters", "near-duplicate"). Reasons are counted, so they
    must not name a row; `details` (n entries, or empty) may, such as the row repeated. `notes` counts the changes to
    kept rows ({"e-mail": 12}).
    """

    rows: pa.Table
    reasons: list[str]
    details: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


class Step(Protocol):
    """A frozen dataclass of options (`hone.parts.options.option`) that judges rows."""

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """A verdict on each row; deterministic, whatever the number of cores."""
