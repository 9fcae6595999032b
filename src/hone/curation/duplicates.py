"""duplicates: keep the first of rows that say the same, or nearly the same."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.curation.columns import labels_of, splits_of
from hone.curation.dedup.folding import fold
from hone.curation.dedup.near import NUM_PERM, SHINGLE, clusters
from hone.parts.options import option
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict


@dataclass(frozen=True)
class Duplicates:
    """Keeps the first of rows that say the same but for case and spacing, or nearly the same.

    Rows of two labels are no duplicates: `label-conflicts` judges them. Nor are rows of two splits, where rows came
    with splits: what the splits share is taken out of the training rows later.
    """

    near: bool = option(True, "Also drop near-duplicates.")
    threshold: float = option(
        0.8, "The Jaccard similarity of two texts' word runs from which they are near-duplicates.", ge=0.3, le=1
    )
    shingle: int = option(SHINGLE, "Words of a run (shingle).", ge=1, le=20)
    num_perm: int = option(NUM_PERM, "Entries of a MinHash signature: more find more and cost more.", ge=16, le=1024)

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """A reason for each row that repeats an earlier one, which its detail names."""
        from hone.curation.step import Verdict

        texts, kinds = fields.row_texts(rows), list(zip(splits_of(rows), labels_of(rows, fields), strict=True))
        first = _first_of_each(list(zip(kinds, map(fold, texts), strict=True)))
        reasons = ["" if row == index else "duplicate" for index, row in enumerate(first)]
        on_progress(Progress(rows.num_rows // 4, rows.num_rows))
        if self.near:
            left = [index for index, reason in enumerate(reasons) if not reason]
            leaders = clusters(
                [texts[i] for i in left],
                self.threshold,
                apart=[kinds[i] for i in left],
                shingle=self.shingle,
                num_perm=self.num_perm,
            )
            for index, leader in zip(left, leaders, strict=True):
                first[index] = left[leader]
        reasons = [reason or ("" if first[i] == i else "near-duplicate") for i, reason in enumerate(reasons)]
        on_progress(Progress(rows.num_rows, rows.num_rows))
        ids = rows.column("id").to_pylist()
        return Verdict(
            rows, reasons, [f"repeats {ids[first[i]]}" if reason else "" for i, reason in enumerate(reasons)]
        )


def _first_of_each(keys: Sequence[Hashable]) -> list[int]:
    """For each key the index of the first that is equal."""
    first: dict[Hashable, int] = {}
    return [first.setdefault(key, index) for index, key in enumerate(keys)]
