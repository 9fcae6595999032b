from __future__ import annotations

import pyarrow as pa

from hone.curation.conflicts import LabelConflicts
from hone.curation.step import Verdict
from hone.objectives.text_classification import TextClassification
from hone.progress import ignore

FIELDS = TextClassification()


def judged(rows: list[tuple[str, str]], **options: object) -> Verdict:
    texts, labels = zip(*rows, strict=True)
    table = pa.table({"id": [str(i) for i in range(len(rows))], "text": texts, "label": labels})
    return LabelConflicts(**options).apply(table, FIELDS, ignore)  # type: ignore[arg-type]


def test_all_rows_of_a_text_with_two_labels_go() -> None:
    verdict = judged([("Same text", "a"), ("other", "a"), ("same  TEXT", "b"), ("other", "a")])
    assert verdict.reasons == ["same text, two labels", "", "same text, two labels", ""]
    assert verdict.details[0] == "a: 1, b: 1"


def test_a_majority_can_be_kept_and_a_tie_is_none() -> None:
    rows = [("t", "a"), ("t", "b"), ("t", "a"), ("u", "a"), ("u", "b")]
    conflict = "same text, two labels"
    assert judged(rows, keep="majority").reasons == ["", conflict, "", conflict, conflict]


def test_rows_of_two_splits_are_left_to_decontamination() -> None:
    rows = pa.table({"id": ["1", "2"], "split": ["train", "test"], "text": ["t", "t"], "label": ["a", "b"]})
    assert LabelConflicts().apply(rows, FIELDS, ignore).reasons == ["", ""]
