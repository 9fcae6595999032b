from __future__ import annotations

import random

import pyarrow as pa

from hone.curation.balance import Balance
from hone.curation.step import Verdict
from hone.objectives.text_classification import TextClassification
from hone.progress import ignore


def judged(rows: list[tuple[str, str]], splits: list[str] | None = None, **options: int) -> Verdict:
    texts, labels = zip(*rows, strict=True)
    table = pa.table(
        {"id": [f"row {t}" for t in texts], "split": splits or [""] * len(rows), "text": texts, "label": labels}
    )
    return Balance(**options).apply(table, TextClassification(), ignore)


ROWS = [(f"text {i}", "large") for i in range(50)] + [(f"few {i}", "small") for i in range(3)]


def test_a_class_too_small_goes_and_each_row_says_so() -> None:
    verdict = judged(ROWS, min_rows=4)
    assert verdict.reasons == [""] * 50 + ["class of fewer than 4 rows"] * 3
    assert verdict.details[-1] == "small: 3 rows"
    assert judged(ROWS, min_rows=3).reasons == [""] * 53


def test_a_class_too_large_is_cut_to_the_same_rows_in_any_order() -> None:
    def kept(rows: list[tuple[str, str]], seed: int = 17) -> set[str]:
        reasons = judged(rows, max_rows=10, seed=seed).reasons
        return {text for (text, _), reason in zip(rows, reasons, strict=True) if not reason}

    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    assert len(kept(ROWS)) == 13
    assert kept(ROWS) == kept(shuffled)
    assert kept(ROWS) != kept(ROWS, seed=18)
    assert "beyond 10 rows of its class" in judged(ROWS, max_rows=10).reasons


def test_the_cap_counts_each_split_that_came_with_the_data() -> None:
    reasons = judged(ROWS, splits=["train", "test"] * 26 + ["train"], max_rows=10).reasons
    assert reasons.count("") == 10 + 10 + 3
