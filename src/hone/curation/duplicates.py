"""duplicates: keep the first of rows with the same or nearly the same text and the same answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hone.curation.columns import splits_of, texts_of
from hone.curation.dedup.folding import digest_text, fold
from hone.curation.dedup.near import NUM_PERM, SHINGLE
from hone.curation.dedup.similar_rows import COMMON, cluster_rows
from hone.parts.options import option
from hone.progress import OnProgress, Progress
from hone.store.tables import filter_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict


@dataclass(frozen=True)
class Duplicates:
    """Keeps the first of rows whose texts are the same, ignoring case and spacing, or nearly the same.

    Rows with different answers are not duplicates (see `label-conflicts`), nor are rows of different splits, if rows
    came with splits: decontamination later removes what the splits share from the training rows. What rows may share,
    such as a system prompt, a passage or a footer of many rows, does not make them duplicates.
    """

    near: Literal["auto"] | bool = option(
        "auto",
        "Also drop near-duplicates; auto: not for chat, preference, seq2seq and embedding, where a question or an"
        " answer may be all that differs.",
    )
    threshold: float = option(
        0.8, "Minimum Jaccard similarity of two texts' word runs to count as near-duplicates.", ge=0.3, le=1
    )
    common: float = option(
        COMMON, "Word runs that more than this share of the rows have do not count; 1 counts all.", gt=0, le=1
    )
    shingle: int = option(SHINGLE, "Number of words in a run (shingle).", ge=1, le=20)
    num_perm: int = option(
        NUM_PERM, "Entries of a MinHash signature; more miss fewer near-duplicates but take longer.", ge=16, le=1024
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Drop each row that repeats an earlier one that is kept."""
        from hone.curation.step import Verdict

        answers = [" ".join(answer.split()) for answer in fields.answer_keys(rows)]
        kinds = list(zip(splits_of(rows), answers, strict=True))
        digests = [
            [digest_text(fold(text)) for text in texts(rows)] for texts in (fields.context_texts, fields.identity_texts)
        ]
        # Text to be written is compared by the character: indentation and case are part of an answer.
        digests += [[*map(digest_text, texts_of(rows, name))] for name in fields.generated]
        first_index = _first_of_each(list(zip(kinds, *digests, strict=True)))
        reasons = ["" if row == index else "duplicate" for index, row in enumerate(first_index)]
        on_progress(Progress(rows.num_rows // 4, rows.num_rows))
        if fields.near_repeats if self.near == "auto" else self.near:
            distinct_rows = [index for index, reason in enumerate(reasons) if not reason]
            leaders = cluster_rows(
                filter_rows(rows, distinct_rows),
                fields,
                self.threshold,
                apart=[kinds[i] for i in distinct_rows],
                common=self.common,
                chained=False,
                shingle=self.shingle,
                num_perm=self.num_perm,
            )
            for index, leader in zip(distinct_rows, leaders, strict=True):
                first_index[index] = distinct_rows[leader]
        reasons = [reason or ("" if first_index[i] == i else "near-duplicate") for i, reason in enumerate(reasons)]
        on_progress(Progress(rows.num_rows, rows.num_rows))
        ids = rows.column("id").to_pylist()
        repeated = [ids[first_index[i]] if reason else "" for i, reason in enumerate(reasons)]
        largest = max(Counter(first_index).values(), default=1)
        summary = f"the largest cluster has {largest} rows" if largest > 1 else ""
        return Verdict(rows, reasons, repeated=repeated, summary=summary)


def _first_of_each(keys: Sequence[Hashable]) -> list[int]:
    """For each key the index of the first equal key."""
    first_index: dict[Hashable, int] = {}
    return [first_index.setdefault(key, index) for index, key in enumerate(keys)]
