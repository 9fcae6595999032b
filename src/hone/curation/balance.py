"""balance: drop small classes and limit the size of large ones."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hone.curation.columns import labels_of, splits_of
from hone.parts.options import option
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict


@dataclass(frozen=True)
class Balance:
    """Drops classes with too few rows, and a random part of classes with too many."""

    drops_by_design: ClassVar[bool] = True

    min_rows: int = option(1, "Minimum number of rows per class; all rows of smaller classes are dropped.", ge=1)
    max_rows: int = option(
        0, "Maximum number of rows per class (and per split, if the data is already split); 0 means no limit.", ge=0
    )
    seed: int = option(17, "Seed of the random choice of rows.", ge=0)

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Drop each row of a class that is too small, and each row beyond the limit of a class that is too large.

        The choice depends on the seed and on the texts, not on the order of the rows.
        """
        from hone.curation.step import Verdict

        labels = labels_of(rows, fields)
        sizes = Counter(labels)
        reasons = [
            f"class of fewer than {self.min_rows} rows" if sizes[label] < self.min_rows else "" for label in labels
        ]
        if self.max_rows:
            for index in self._rows_beyond_limit(rows, fields, labels):
                reasons[index] = reasons[index] or f"beyond {self.max_rows} rows of its class"
        details = [
            f"{label}: {sizes[label]} rows" if reason else "" for label, reason in zip(labels, reasons, strict=True)
        ]
        on_progress(Progress(rows.num_rows, rows.num_rows))
        return Verdict(rows, reasons, details)

    def _rows_beyond_limit(self, rows: pa.Table, fields: Fields, labels: list[str]) -> list[int]:
        """The indices of rows beyond the limit of their class: the last ones in an order by hash."""
        groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for index, key in enumerate(zip(splits_of(rows), labels, strict=True)):
            groups[key].append(index)
        ids, texts = rows.column("id").to_pylist(), fields.row_texts(rows)
        beyond: list[int] = []
        for group in groups.values():
            ranked = sorted(group, key=lambda i: (rank_of_text(self.seed, texts[i]), ids[i]))
            beyond += ranked[self.max_rows :]
        return beyond


def rank_of_text(seed: int, text: str) -> bytes:
    """A sort key for a random order that depends only on the seed and the text."""
    return hashlib.blake2b(f"{seed}\n{text}".encode("utf8", "surrogatepass"), digest_size=12).digest()
