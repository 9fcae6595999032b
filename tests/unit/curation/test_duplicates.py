from __future__ import annotations

import pyarrow as pa

from hone.curation.duplicates import Duplicates
from hone.curation.step import Verdict
from hone.objectives.text_classification import TextClassification
from hone.progress import ignore

LONG = "please tell me where in the world my new credit card has got to this week"


def judged(
    texts: list[str], labels: list[str] | None = None, splits: list[str] | None = None, **options: object
) -> Verdict:
    rows = pa.table(
        {
            "id": [f"row{i}" for i in range(len(texts))],
            "split": splits or [""] * len(texts),
            "text": texts,
            "label": labels or ["a"] * len(texts),
        }
    )
    return Duplicates(**options).apply(rows, TextClassification(), ignore)  # type: ignore[arg-type]


def test_the_first_of_equal_and_of_nearly_equal_rows_stays() -> None:
    verdict = judged(["Where is it?", LONG, "where  IS it?", LONG + " or next", "where is it", "something else"])
    assert verdict.reasons == ["", "", "duplicate", "near-duplicate", "near-duplicate", ""]
    assert verdict.repeated == ["", "", "row0", "row1", "row0", ""]


def test_near_can_be_turned_off_and_the_threshold_moved() -> None:
    texts = [LONG, LONG + " or next", LONG.upper()]
    assert judged(texts, near=False).reasons == ["", "", "duplicate"]
    assert judged(texts, threshold=0.95).reasons == ["", "", "duplicate"]


def test_rows_of_two_labels_or_two_splits_are_no_duplicates() -> None:
    assert judged([LONG, LONG, LONG], labels=["a", "b", "a"]).reasons == ["", "", "duplicate"]
    assert judged([LONG, LONG, LONG + " x"], splits=["train", "test", "test"]).reasons == ["", "", "near-duplicate"]


def test_a_text_of_a_million_characters() -> None:
    long = "word " * 200_000
    assert judged([long, "short", long.upper(), long + "?"]).reasons == ["", "", "duplicate", "near-duplicate"]
