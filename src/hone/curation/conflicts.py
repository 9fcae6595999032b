"""label-conflicts: drop texts that have more than one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hone.curation.columns import splits_of
from hone.curation.dedup.folding import digest_text, fold
from hone.parts.options import option
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict


@dataclass(frozen=True)
class LabelConflicts:
    """Drops rows whose text also occurs with another label, ignoring case and spacing.

    So it does with other answers of which one is right: sets of labels, tags, answers to a question. Where a text may
    have several right answers (numbers, targets, completions) rows are counted, not dropped.
    `keep: majority` only works before `duplicates`, which leaves one row per answer.
    """

    keep: Literal["none", "majority"] = option(
        "none",
        "none: drop all rows of such a text; majority: keep the rows of a label that more than half of them have.",
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Drop each row in conflict; its detail lists the answers to its text and their numbers of rows."""
        from hone.curation.step import Verdict

        digests = (
            [digest_text(fold(text)) for text in texts(rows)] for texts in (fields.context_texts, fields.identity_texts)
        )
        keys = list(zip(splits_of(rows), *digests, strict=True))
        answers = fields.answer_keys(rows)
        counts_by_text: dict[Hashable, Counter[str]] = {}
        for key, answer in zip(keys, answers, strict=True):
            counts_by_text.setdefault(key, Counter())[answer] += 1
        contradicted = [len(counts_by_text[key]) > 1 for key in keys]
        on_progress(Progress(rows.num_rows, rows.num_rows))
        if not fields.single_answer:
            summary = f"{sum(contradicted)} rows have a text with other answers too" if any(contradicted) else ""
            return Verdict(rows, [""] * rows.num_rows, summary=summary)
        reasons, details = [], []
        for key, answer, is_contradicted in zip(keys, answers, contradicted, strict=True):
            counts = counts_by_text[key]
            conflict = is_contradicted and not (self.keep == "majority" and 2 * counts[answer] > counts.total())
            reasons.append(("same text, two labels" if fields.label else "same text, two answers") if conflict else "")
            details.append(_describe_counts(counts) if conflict else "")
        return Verdict(rows, reasons, details)


def _describe_counts(answers: Counter[str]) -> str:
    return ", ".join(f"{answer}: {count}" for answer, count in sorted(answers.items()))
