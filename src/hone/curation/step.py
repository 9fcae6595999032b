"""What every curation step is: options in, a verdict on each row out."""

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

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Each row as a person reads it."""

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The texts in one value of a text column."""

    def replace_texts(self, column: str, value: str, pieces: list[str]) -> str:
        """The value with its texts rewritten."""

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """The rewritten rows with what points into their texts pointing there again; '' or a reason to drop each."""

    def strata(self, rows: pa.Table) -> list[str]:
        """The kind of each row, of which every split is to have its share."""


@dataclass(frozen=True)
class Verdict:
    """What a step says of a table of n rows.

    `rows`: n rows in the same order, texts perhaps rewritten. `reasons`: n entries, '' keeps the row, a short
    lower-case phrase drops it ("shorter than 20 characters", "near-duplicate"). The phrases are counted, so they
    name no row; `details` (n entries, or none) may: the row it repeats. `notes` counts what was changed in rows
    that stay ({"e-mail": 12}).
    """

    rows: pa.Table
    reasons: list[str]
    details: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


class Step(Protocol):
    """A frozen dataclass of options (`hone.parts.options.option`) that judges rows."""

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """A verdict on each row; deterministic, whatever the number of cores."""
