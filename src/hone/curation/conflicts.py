"""label-conflicts: the same text must not have two labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hone.curation.columns import labels_of, splits_of
from hone.curation.dedup.folding import fold
from hone.parts.options import option
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict


@dataclass(frozen=True)
class LabelConflicts:
    """Drops rows whose text, but for case and spacing, also stands with another label.

    A majority can be told only before `duplicates`, which leaves one row of each label.
    """

    keep: Literal["none", "majority"] = option(
        "none",
        "none: drop all rows of such a text; majority: keep those of the label that more than half of them have.",
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """A reason for each row in conflict; its detail names the labels of its text and how many rows have each."""
        from hone.curation.step import Verdict

        keys = list(zip(splits_of(rows), map(fold, fields.row_texts(rows)), strict=True))
        labels = labels_of(rows, fields)
        found: dict[tuple[str, str], Counter[str]] = {}
        for key, label in zip(keys, labels, strict=True):
            found.setdefault(key, Counter())[label] += 1
        reasons, details = [], []
        for key, label in zip(keys, labels, strict=True):
            conflict = len(found[key]) > 1 and not (
                self.keep == "majority" and 2 * found[key][label] > found[key].total()
            )
            reasons.append("same text, two labels" if conflict else "")
            details.append(_told(found[key]) if conflict else "")
        on_progress(Progress(rows.num_rows, rows.num_rows))
        return Verdict(rows, reasons, details)


def _told(labels: Counter[str]) -> str:
    return ", ".join(f"{label}: {count}" for label, count in sorted(labels.items()))
