"""label-conflicts: drop texts that have more than one label."""

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
    """Drops rows whose text also occurs with another label, ignoring case and spacing.

    `keep: majority` only works before `duplicates`, which leaves one row per label.
    """

    keep: Literal["none", "majority"] = option(
        "none",
        "none: drop all rows of such a text; majority: keep the rows of a label that more than half of them have.",
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Drop each row in conflict; its detail lists the labels of its text and their numbers of rows."""
        from hone.curation.step import Verdict

        keys = list(zip(splits_of(rows), map(fold, fields.row_texts(rows)), strict=True))
        labels = labels_of(rows, fields)
        labels_by_text: dict[tuple[str, str], Counter[str]] = {}
        for key, label in zip(keys, labels, strict=True):
            labels_by_text.setdefault(key, Counter())[label] += 1
        reasons, details = [], []
        for key, label in zip(keys, labels, strict=True):
            conflict = len(labels_by_text[key]) > 1 and not (
                self.keep == "majority" and 2 * labels_by_text[key][label] > labels_by_text[key].total()
            )
            reasons.append("same text, two labels" if conflict else "")
            details.append(_describe_counts(labels_by_text[key]) if conflict else "")
        on_progress(Progress(rows.num_rows, rows.num_rows))
        return Verdict(rows, reasons, details)


def _describe_counts(labels: Counter[str]) -> str:
    return ", ".join(f"{label}: {count}" for label, count in sorted(labels.items()))
