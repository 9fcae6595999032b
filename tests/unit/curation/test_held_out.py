"""Validation and test rows that came with the data: none is dropped, none is rewritten, what is wrong is counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.curation.account import Limits
from hone.curation.balance import Balance
from hone.curation.conflicts import LabelConflicts
from hone.curation.curate import curate
from hone.curation.duplicates import Duplicates
from hone.curation.filters import Filters
from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.curation.step import Step
from hone.errors import DataError
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.text_classification import TextClassification
from hone.splits import FLAW
from hone.store.artifact import Product

STEPS: list[tuple[str, Step]] = [
    ("normalize", Normalize()),
    ("filters", Filters(min_chars=4)),
    ("duplicates", Duplicates()),
    ("label-conflicts", LabelConflicts()),
    ("balance", Balance(max_rows=30)),
]
# Too short, a duplicate, a conflict, and one with HTML and double spaces.
FLAWED = ["ok", "the same test text", "The same  test text", "one text", "one text", "<p>An  &amp; entity</p>"]
LABELS = ["a", "a", "a", "a", "b", "b"]


def given_rows(count: int = 50, held_out: str = "test") -> pa.Table:
    train = [(f"training text number {i} {i * 7919}", "ab"[i % 2], "train") for i in range(2 * count)]
    test = [(f"test text number {i} {i * 104729}", "ab"[i % 2], held_out) for i in range(2 * count)]
    flawed = [(text, label, held_out) for text, label in zip(FLAWED, LABELS, strict=True)]
    texts, labels, splits = zip(*train, *test, *flawed, strict=True)
    ids = [f"row{i}" for i in range(len(texts))]
    columns = {"id": ids, "source": [""] * len(ids), "split": splits, "text": texts, "label": labels}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def curated(rows: pa.Table, out: Path, steps: list[tuple[str, Step]] = STEPS, **limits: Any) -> Product:
    out.mkdir(exist_ok=True)
    pq.write_table(rows, out / "in.parquet")
    settings: dict[str, Any] = {"valid": 0.1, "test": 0.1, "seed": 17, "near_duplicate": 0.8}
    fields = TextClassification()
    return curate(out / "in.parquet", out, steps=steps, fields=fields, limits=Limits(**limits), **settings)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_no_held_out_row_is_dropped_or_rewritten_and_its_flaws_are_counted(split: str, tmp_path: Path) -> None:
    rows = given_rows(held_out=split)
    product = curated(rows, tmp_path)
    test = pq.read_table(tmp_path / f"{split}.parquet")
    expected = rows.filter(pa.compute.equal(rows["split"], split))
    assert test.select(expected.column_names).equals(expected)
    flaws = dict(zip(test["text"].to_pylist(), test[FLAW].to_pylist(), strict=True))
    capped = "; balance: beyond 30 rows of its class"
    assert flaws["ok"] == "filters: shorter than 4 characters" + capped
    assert flaws["The same  test text"] == "duplicates: duplicate"
    assert flaws["one text"] == "label-conflicts: same text, two labels"
    assert flaws["<p>An  &amp; entity</p>"] in ("", "balance: beyond 30 rows of its class")
    assert product.facts["given"] == {split: 106}
    assert product.facts["splits"][split] == 106
    assert product.facts["flawed"][split] == sum(map(bool, test[FLAW].to_pylist())) > 40
    balance = next(entry for entry in product.facts["funnel"] if entry["step"] == "balance")
    assert balance["flagged"]["beyond 30 rows of its class"] > 40
    assert pq.read_table(tmp_path / "train.parquet")["split"].unique().to_pylist() == ["train"]


def test_balance_leaves_an_uneven_test_split_as_it_is(tmp_path: Path) -> None:
    counts = {("train", "a"): 900, ("train", "b"): 700, ("test", "a"): 1718, ("test", "b"): 1252}
    cells = [(split, label, f"{split} {label} {n}") for (split, label), count in counts.items() for n in range(count)]
    splits, labels, texts = zip(*cells, strict=True)
    rows = pa.table({"id": texts, "source": [""] * len(texts), "split": splits, "text": texts, "label": labels})
    product = curated(rows, tmp_path, [("balance", Balance(max_rows=500))])
    classes = product.facts["classes"]
    assert classes["test"] == {"a": 1718, "b": 1252}
    assert max(classes["train"].values()) <= 500


def test_an_option_lets_the_steps_drop_them(tmp_path: Path) -> None:
    product = curated(given_rows(), tmp_path, curate_held_out=True)
    assert product.facts["given"] == {"test": 106}
    assert product.facts["splits"]["test"] == 60
    assert FLAW not in pq.read_table(tmp_path / "test.parquet").column_names


def test_rows_drawn_for_the_test_split_have_the_text_that_came_too(tmp_path: Path) -> None:
    rows = given_rows().drop_columns(["split"])
    rows = rows.add_column(2, "split", pa.array([""] * rows.num_rows, pa.string()))
    texts = [f"<p>{text}</p>" for text in rows["text"].to_pylist()]
    rows = rows.set_column(rows.column_names.index("text"), "text", pa.array(texts))
    curated(rows, tmp_path, STEPS[:3])
    came = set(texts)
    for split, is_raw in (("train", False), ("valid", True), ("test", True)):
        split_texts = pq.read_table(tmp_path / f"{split}.parquet")["text"].to_pylist()
        assert split_texts and all((text in came) is is_raw for text in split_texts)


def test_personal_data_is_removed_from_test_rows_as_well(tmp_path: Path) -> None:
    rows = given_rows()
    texts = [f"{text}  mail ann@example.org" for text in rows["text"].to_pylist()]
    rows = rows.set_column(rows.column_names.index("text"), "text", pa.array(texts))
    curated(rows, tmp_path, [("normalize", Normalize()), ("redact", Redact())])
    for text in pq.read_table(tmp_path / "test.parquet")["text"].to_pylist():
        assert "  mail <EMAIL>" in text and "example.org" not in text


@pytest.mark.parametrize("steps", [[], [("normalize", Normalize())]], ids=["redact", "normalize and redact"])
def test_an_answer_within_personal_data_is_reported_and_points_nowhere(
    steps: list[tuple[str, Step]], tmp_path: Path
) -> None:
    """A model cannot find it: its context has a tag in that place."""
    rows = []
    for number, split in enumerate(["train"] * 20 + ["test"] * 4):
        context = f"Call  me at lake {number * 7919}, or mail ann{number}@example.org today."
        texts = ["example.org", "today"] if number == 22 else [f"ann{number}@example.org", "today"]
        if number == 23:  # a number that only the text as it came shows to be a phone's
            context, texts = f'Or <a href="tel:">5551234567</a> today. {context}', ["5551234567", "Or"]
        answers = {"text": texts, "answer_start": [context.index(text) for text in texts]}
        row = {"id": f"row{number}", "source": "", "split": split, "question": f"Where {number}?", "context": context}
        rows.append({**row, "answers": json.dumps(answers)})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    fields = QuestionAnswering()
    settings: dict[str, Any] = {"valid": 0.1, "test": 0.1, "seed": 17, "near_duplicate": 1.0}
    product = curate(tmp_path / "in.parquet", tmp_path, steps=[*steps, ("redact", Redact())], fields=fields, **settings)
    assert product.facts["flawed"] == {"test": 2}
    for row in pq.read_table(tmp_path / "test.parquet").to_pylist():
        answers = json.loads(row["answers"])
        starts = {text: row["context"].find(text) for text in ("<EMAIL>", "today")}
        assert starts["<EMAIL>"] > 0
        lost = {"row22": ["example.org", "today"], "row23": ["5551234567", "Or"]}.get(row["id"])
        if lost:
            assert answers == {"text": lost, "answer_start": [-1, row["context"].index(lost[1])]}
            assert row[FLAW] == "redact: an answer is no longer in the context"
        else:
            assert dict(zip(answers["text"], answers["answer_start"], strict=True)) == starts
            assert row[FLAW] == ""


def test_a_step_that_drops_a_large_part_warns_with_its_largest_groups_or_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pa.table(
        {
            "id": [f"row{i}" for i in range(100)],
            "source": [""] * 100,
            "split": [""] * 100,
            "text": ["always the same text"] * 40 + [f"text {i} {i * 7919} {i * 104729}" for i in range(60)],
            "label": ["a"] * 70 + ["b"] * 30,
        }
    )
    with caplog.at_level(logging.WARNING):
        product = curated(rows, tmp_path, [("duplicates", Duplicates())])
    assert "duplicates drops 39 of 100 rows (39%; curation.max_dropped is 20%)" in caplog.text
    assert "largest groups: 39 repeats row0" in caplog.text
    assert product.facts["funnel"][0]["warning"] in caplog.text
    with pytest.raises(DataError, match="duplicates drops 39 of 100 rows"):
        curated(rows, tmp_path, [("duplicates", Duplicates())], stop=True)
    caplog.clear()
    curated(rows, tmp_path, [("duplicates", Duplicates())], max_dropped=0.5, stop=True)
    curated(rows, tmp_path, [("balance", Balance(max_rows=30))], stop=True)  # a number that was asked for
    assert not caplog.text


def test_a_row_with_two_flaws_has_both(tmp_path: Path) -> None:
    rows = given_rows(held_out="test").to_pylist()
    repeats = [{**rows[150], "id": f"repeat{i}", "split": "valid"} for i in range(2)]
    curated(pa.Table.from_pylist([*rows, *repeats]), tmp_path, STEPS[:3])
    valid = pq.read_table(tmp_path / "valid.parquet")
    flaws = dict(zip(valid["id"].to_pylist(), valid[FLAW].to_pylist(), strict=True))
    assert flaws["repeat0"] == "decontaminate: also in test"
    assert flaws["repeat1"] == "duplicates: duplicate; decontaminate: also in test"


def test_the_setting_that_decontamination_follows_is_named(tmp_path: Path) -> None:
    rows = given_rows().to_pylist()
    training = [{**row, "id": f"again-{row['id']}", "split": "train"} for row in rows if row["split"] == "test"]
    with pytest.raises(DataError, match=r"decontaminate drops \d+ of") as fault:
        curated(pa.Table.from_pylist([*rows, *training]), tmp_path, [], stop=True)
    assert fault.value.where == "curation.split"
    assert "curation.split.near_duplicate" in fault.value.fix
