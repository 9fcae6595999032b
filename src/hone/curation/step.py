"""What every curation step is: options in, a verdict on each row out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Fields:
    """The columns a step may look at: the objective's `text` columns, and its `label` column ('' for none)."""

    text: tuple[str, ...]
    label: str = ""


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
    """A frozen dataclass of options (`hone.options.option`) that judges rows."""

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """A verdict on each row; deterministic, whatever the number of cores."""
