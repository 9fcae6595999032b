"""Ingest: read = rows + refused, whatever the input; real data sets come out row for row."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.errors import ConfigError, DataError, SkippedRow
from hone.objectives import OBJECTIVES
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.regression import Regression
from hone.progress import Progress
from hone.sources.files import Files
from hone.sources.ingest import ingest, text_of
from hone.sources.source import RawRow, Source
from hone.sources.splits import read_splits
from hone.sources.sql import Sql
from hone.store.artifact import Product


@dataclass(frozen=True)
class Given:
    """A source of the rows it is given."""

    raw: Sequence[RawRow] = field(default_factory=list)

    def fingerprint(self, digest: object) -> str:
        return ""

    def rows(self) -> Iterator[RawRow]:
        yield from self.raw


def given_rows(*values: Mapping[str, Any]) -> Given:
    return Given([RawRow(f"here:{n}", "here", dict(row)) for n, row in enumerate(values, 1)])


def run(source: Source, out: Path, **options: Any) -> Product:
    out.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {"columns": ("text", "label"), "rename": {}, "keep": (), "max_refused": 0.0}
    return ingest(source, out, **(defaults | options))


def written(out: Path, name: str = "rows") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


def test_columns_are_renamed_and_kept_as_strings(tmp_path: Path) -> None:
    source = given_rows({"body": "a", "topic": 3, "extra": {"x": [1, "é"]}}, {"body": "b", "topic": True})
    product = run(source, tmp_path, rename={"text": "body", "label": "topic"}, keep=["extra"])
    assert written(tmp_path) == [
        {"id": "here:1", "source": "here", "split": "", "text": "a", "label": "3", "extra": '{"x": [1, "é"]}'},
        {"id": "here:2", "source": "here", "split": "", "text": "b", "label": "true", "extra": None},
    ]
    assert (product.rows, product.content) == (2, ("rows.parquet",))
    assert product.facts == {"read": 2, "rows": 2, "refused": 0, "reasons": {}, "sources": {"here": 2}}


def test_refused_rows_are_counted_and_kept_with_their_reason(tmp_path: Path) -> None:
    rows = [
        RawRow("f:1", "f", {"text": "a", "label": "x"}),
        RawRow("f:2", "f", {"line": "b"}, refused="1 field where there are 2 columns: line 3"),
        RawRow("f:3", "f", {"text": None, "label": "x"}),
        RawRow("f:4", "f", {"text": "d"}),
        RawRow("f:5", "f", {"text": "half \ud800", "label": "x"}),
        RawRow("f:6", "f", {"text": b"\xff", "label": "x"}),
    ]
    product = run(Given(rows), tmp_path, max_refused=0.9)
    assert product.facts == {
        "read": 6,
        "rows": 1,
        "refused": 5,
        "reasons": {
            "1 field where there are 2 columns": 1,
            "text is null": 1,
            "there is no label": 1,
            "text is not text": 2,
        },
        "sources": {"f": 1},
    }
    refused = written(tmp_path, "refused")
    assert [row["where"] for row in refused] == ["f:2", "f:3", "f:4", "f:5", "f:6"]
    assert refused[0]["reason"] == "1 field where there are 2 columns: line 3"
    assert json.loads(refused[1]["raw"]) == {"text": None, "label": "x"}


def test_too_many_refused_rows_stop_with_counts_and_the_first_five(tmp_path: Path) -> None:
    rows = [{"text": "good", "label": "x"}] * 90 + [{"text": f"bad {n}", "label": None} for n in range(10)]
    with pytest.raises(DataError) as fault:
        run(given_rows(*rows), tmp_path, max_refused=0.09)
    message = str(fault.value)
    assert message.startswith("here: 10 of 100 rows are refused (10.00%; max_refused is 9.00%)")
    assert [n for n in range(10) if f"bad {n}" in message] == [0, 1, 2, 3, 4]
    assert "here:91  label is null" in message
    assert run(given_rows(*rows), tmp_path, max_refused=0.1).rows == 90


def test_all_rows_refused_stop_whatever_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 of 2 rows are refused"):
        run(given_rows({"text": None, "label": ""}, {"text": None, "label": ""}), tmp_path, max_refused=1)


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        (
            ["txet", "label"],
            {},
            ["no row has a column 'text'; the columns are 'txet', 'label'", "Did you mean 'txet'?"],
        ),
        (["txet", "label"], {}, ["ingest.columns: {text: txet}"]),
        (["a", "b"], {}, ["the columns are 'a', 'b'", "ingest.columns: {text: NAME}"]),
        (["text", "label"], {"keep": ["topic"]}, ["no row has a column 'topic'", "ingest.keep"]),
        (["text", "label"], {"rename": {"label": "Label"}}, ["no row has a column 'Label'", "Did you mean 'label'?"]),
    ],
)
def test_a_wrong_column_says_what_there_is_and_what_to_set(
    tmp_path: Path, columns: list[str], options: dict[str, Any], expected: list[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(columns) + "\na,x\n")
    with pytest.raises(DataError) as fault:
        run(Files(paths=[str(path)]), tmp_path / "out", max_refused=1, **options)
    assert str(fault.value).startswith("a.csv: ")
    for part in expected:
        assert part in str(fault.value)


def upper(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A shape: the label in capitals; a label that is a number is refused."""
    if isinstance(values.get("label"), int):
        raise ValueError("label is a number: 7")
    return {**values, "label": values["label"].upper()} if values.get("label") else values


def test_a_shape_sees_columns_by_our_names(tmp_path: Path) -> None:
    # The source has a column called label too, which is not the one that is meant.
    rows = [
        {"text": "a", "topic": "x", "label": 1},
        {"text": "b", "topic": 7, "label": "y"},
        {"text": "c", "label": "z"},
    ]
    product = run(given_rows(*rows), tmp_path, rename={"label": "topic"}, shape=upper, max_refused=0.9, keep=["topic"])
    assert written(tmp_path) == [
        {"id": "here:1", "source": "here", "split": "", "text": "a", "label": "X", "topic": "x"}
    ]
    assert product.facts["reasons"] == {"label is a number": 1, "there is no topic": 1}
    assert json.loads(written(tmp_path, "refused")[0]["raw"]) == {"text": "b", "topic": 7, "label": "y"}


@pytest.mark.parametrize(
    ("row", "objective"),
    [
        ({"text": "a", "labels": ["x", "y"]}, "multi-label-classification"),
        ({"messages": [{"role": "user", "content": "a"}]}, "chat"),
        ({"tokens": ["a"], "tags": ["O"]}, "token-classification"),
        ({"text": "a", "score": 3.5}, "regression"),
    ],
)
def test_rows_of_another_objective_are_told(tmp_path: Path, row: dict[str, Any], objective: str) -> None:
    with pytest.raises(DataError, match="no row has a column") as fault:
        run(given_rows(row), tmp_path, objective="text-classification")
    assert f"These rows look like data for {objective}: if so, set objective.kind to {objective}." in str(fault.value)
    with pytest.raises(DataError) as fault:
        run(given_rows(row), tmp_path, objective=objective)
    assert "look like data" not in str(fault.value)


@pytest.mark.parametrize(
    ("asked", "row", "likely"),
    [
        ("text-classification", {"text": "a", "label": ["x", "y"]}, "multi-label-classification"),
        ("regression", {"text": "a", "label": "joy"}, "text-classification"),
        ("multi-label-classification", {"text": "a", "labels": 2.5, "label": 2.5}, "regression"),
    ],
)
def test_rows_that_are_all_refused_may_be_of_another_objective(
    tmp_path: Path, asked: str, row: dict[str, Any], likely: str
) -> None:
    part = OBJECTIVES[asked]()
    with pytest.raises(DataError, match="1 of 1 rows are refused") as fault:
        run(given_rows(row), tmp_path, columns=part.columns, shape=part.normalize_row, objective=asked, max_refused=1)
    assert f"look like data for {likely}" in str(fault.value)


def test_labels_in_any_form_are_written_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,labels\na,"[""joy"", ""love""]"\nb,joy;anger\nc,\n')
    part = MultiLabelClassification(separator=";")
    run(Files(paths=[str(tmp_path / "a.csv")]), tmp_path / "out", columns=part.columns, shape=part.normalize_row)
    assert [row["labels"] for row in written(tmp_path / "out")] == ['["joy", "love"]', '["anger", "joy"]', "[]"]
    (tmp_path / "b.csv").write_text("text,toxic,threat\na,1,0\nb,0,0\nc,1,1\nd,2,0\n")
    part = MultiLabelClassification(label_columns=("toxic", "threat"))
    product = run(
        Files(paths=[str(tmp_path / "b.csv")]),
        tmp_path / "bits",
        columns=part.columns,
        shape=part.normalize_row,
        max_refused=0.5,
    )
    assert [row["labels"] for row in written(tmp_path / "bits")] == ['["toxic"]', "[]", '["threat", "toxic"]']
    assert product.facts["reasons"] == {"toxic is neither 0 nor 1": 1}


def test_a_number_is_written_as_one(tmp_path: Path) -> None:
    part = Regression()
    source = given_rows({"text": "a", "price": "3"}, {"text": "b", "price": 0.1}, {"text": "c", "price": "n/a"})
    product = run(
        source, tmp_path, columns=part.columns, shape=part.normalize_row, rename={"label": "price"}, max_refused=0.5
    )
    assert [row["label"] for row in written(tmp_path)] == ["3.0", "0.1"]
    assert product.facts["reasons"] == {"label is not a number": 1}


def test_a_column_that_comes_late_is_a_column(tmp_path: Path) -> None:
    product = run(given_rows({"text": "a"}, {"text": "b", "label": "x"}), tmp_path, max_refused=0.5)
    assert product.facts["reasons"] == {"there is no label": 1}


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the source has no rows"):
        run(Given(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": {"txt": "body"}}, "objective has no column txt"),
        ({"keep": ["text"]}, "duplicate column text"),
        ({"keep": ["source"]}, "duplicate column source"),
        ({"keep": ["a", "a"]}, "duplicate column a"),
    ],
)
def test_a_mapping_of_no_column_is_a_fault_of_the_config(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(given_rows({"text": "a", "label": "x", "a": "b"}), tmp_path, **options)


def test_a_row_is_shaped_under_the_objectives_names_for_its_columns(tmp_path: Path) -> None:
    def shape(values: Mapping[str, Any]) -> dict[str, Any]:
        if values["text"] == "x":
            raise ValueError("text: an x")
        return {"text": values["text"].upper()}

    source = given_rows({"body": "a", "text": "other", "label": "l"}, {"body": "x", "text": "other", "label": "l"})
    run(source, tmp_path, rename={"text": "body"}, shape=shape, max_refused=0.5)
    assert [(row["text"], row["label"]) for row in written(tmp_path)] == [("A", "l")]
    assert [row["reason"] for row in written(tmp_path, "refused")] == ["text: an x"]


def test_row_groups_and_progress(tmp_path: Path) -> None:
    heard: list[Progress] = []
    run(given_rows(*[{"text": "a", "label": "x"}] * 25_000), tmp_path, on_progress=heard.append)
    assert [(p.done, p.total) for p in heard] == [(10_000, 0), (20_000, 0), (25_000, 25_000)]
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3


def test_long_texts_are_written_before_they_fill_the_memory(tmp_path: Path) -> None:
    run(given_rows(*[{"text": "a" * 12_000_000, "label": "x"}] * 4), tmp_path)
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 2
    assert [len(row["text"]) for row in written(tmp_path)] == [12_000_000] * 4


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(given_rows({"text": "a", "label": "x"}), tmp_path / name)
    assert (tmp_path / "a/rows.parquet").read_bytes() == (tmp_path / "b/rows.parquet").read_bytes()


def test_a_full_disk_is_an_oserror_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").symlink_to("/dev/full")
    with pytest.raises(OSError) as fault:
        run(given_rows(*[{"text": os.urandom(500).hex(), "label": "x"}] * 3000), tmp_path)
    assert fault.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (None, None),
        (float("nan"), None),
        (1, "1"),
        (1.5, "1.5"),
        (False, "false"),
        (b"caf\xc3\xa9", "café"),
        (["a", {"b": None}], '["a", {"b": null}]'),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (Decimal("1.10"), "1.10"),
    ],
)
def test_text_of(value: Any, text: str | None) -> None:
    assert text_of(value) == text


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"text": st.none() | st.text(), "label": st.text()}), min_size=1
    ).filter(lambda rows: any(row.get("text") is not None and "label" in row for row in rows))
)
def test_every_row_is_accounted_for(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    facts = run(given_rows(*rows), tmp_path, max_refused=1).facts
    whole = {n: row for n, row in enumerate(rows, 1) if row.get("text") is not None and "label" in row}
    assert facts["read"] == facts["rows"] + facts["refused"] == len(rows)
    assert {int(row["id"][5:]): {k: row[k] for k in ("text", "label")} for row in written(tmp_path)} == whole
    assert len(written(tmp_path, "refused")) == facts["refused"] == sum(facts["reasons"].values())


class TestRealData:
    def test_banking77(self, shared: Path, tmp_path: Path) -> None:
        source = Files(
            paths=[str(shared / "datasets/banking77/*.csv")], splits={"train": "train.csv", "test": "test.csv"}
        )
        product = run(source, tmp_path, rename={"label": "category"})
        assert product.facts["sources"] == {"test.csv": 3080, "train.csv": 10_003}
        rows = written(tmp_path)
        assert len({row["id"] for row in rows}) == 13_083
        assert sum("\n" in row["text"] for row in rows if row["split"] == "train") == 10
        assert len({row["label"] for row in rows}) == 77

    def test_sms_spam(self, shared: Path, tmp_path: Path) -> None:
        source = Files(paths=[str(shared / "datasets/sms_spam/sms.tsv")], column_names=["label", "text"])
        assert run(source, tmp_path).facts["read"] == 5574
        rows = written(tmp_path)
        assert {row["label"] for row in rows} == {"ham", "spam"}
        assert sum('"' in row["text"] for row in rows) > 100

    def test_snips(self, shared: Path, tmp_path: Path) -> None:
        source = Files(
            paths=[str(shared / "datasets/snips/*")],
            column_files={"text": "seq.in", "slots": "seq.out", "label": "label"},
            splits={"train": "train/*", "valid": "valid/*", "test": "test/*"},
        )
        product = run(source, tmp_path, keep=["slots"])
        assert product.facts["sources"] == {"test/seq.in": 700, "train/seq.in": 13_084, "valid/seq.in": 700}
        rows = written(tmp_path)
        assert len({row["id"] for row in rows}) == 14_484
        assert all(len(row["text"].split()) == len(row["slots"].split()) for row in rows)

    def test_tweet_eval_emotion(self, shared: Path, tmp_path: Path) -> None:
        source = Files(
            paths=[str(shared / "datasets/tweet_eval_emotion")],
            column_files={"text": "*_text.txt", "label": "*_labels.txt"},
            splits={"train": "train_*", "valid": "val_*", "test": "test_*"},
        )
        facts = run(source, tmp_path).facts
        assert facts["sources"] == {"test_text.txt": 1421, "train_text.txt": 3257, "val_text.txt": 374}
        assert {row["label"] for row in written(tmp_path)} == {"0", "1", "2", "3"}

    def test_scitldr(self, shared: Path, tmp_path: Path) -> None:
        source = Files(paths=[str(shared / "datasets/scitldr_a/*.jsonl")])
        product = run(source, tmp_path, rename={"text": "source", "label": "target"}, keep=["title"])
        assert product.facts["sources"] == {"dev.jsonl": 619, "test.jsonl": 618, "train.jsonl": 1992}
        assert all(isinstance(json.loads(row["text"]), list) for row in written(tmp_path))


def test_renamed_columns_are_shaped_under_the_objectives_names(tmp_path: Path) -> None:
    def shape(values: Mapping[str, Any]) -> Mapping[str, Any]:
        if not values["text"].strip():
            raise ValueError("empty text: text")
        return {**values, "text": values["text"].upper()}

    rows = given_rows({"body": "a", "text": "other", "label": "x"}, {"body": " ", "text": "other", "label": "x"})
    product = run(rows, tmp_path, rename={"text": "body"}, max_refused=0.5, shape=shape)
    assert product.facts["reasons"] == {"empty text": 1}
    assert pq.read_table(tmp_path / "rows.parquet")["text"].to_pylist() == ["A"]


class TestSplitColumn:
    def splits(self, out: Path, column: str, *values: Mapping[str, Any]) -> list[str]:
        run(given_rows(*values), out, split_column=column, max_refused=0.9)
        return [row["split"] for row in written(out)]

    def test_a_column_with_the_names_of_splits_is_read(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "split": split} for split in ("Train", "dev", "validation", "test")]
        assert self.splits(tmp_path, "split", *rows) == ["train", "valid", "valid", "test"]

    def test_a_column_that_is_called_split_and_means_something_else_is_not(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "split": split} for split in ("banana", "", "cherry")]
        assert self.splits(tmp_path, "split", *rows) == ["", "", ""]

    def test_rows_before_the_first_value_do_not_decide(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "split": split} for split in ("", "train", "test")]
        assert self.splits(tmp_path, "split", *rows) == ["train", "test"]
        assert [row["reason"] for row in written(tmp_path, "refused")] == ["split, the split, is empty"]
        empty = [{"text": "a", "label": "b", "split": ""}] * 2
        assert self.splits(tmp_path, "split", *empty) == ["", ""]

    @pytest.mark.parametrize("last", ["test", "banana", ""])
    def test_the_order_of_the_rows_is_the_sources(self, last: str) -> None:
        rows = [
            RawRow("f:1", "f", {"split": ""}),
            RawRow("f:2", "f", {}, refused="not JSON"),
            RawRow("f:3", "f", {}),
            RawRow("f:4", "f", {"split": last}),
        ]
        assert [row.where for row in read_splits(rows, "split")] == [row.where for row in rows]

    def test_the_column_that_is_read_cannot_be_kept_twice(self, tmp_path: Path) -> None:
        rows = given_rows({"text": "a", "label": "b", "split": "train"})
        with pytest.raises(ConfigError, match="duplicate column split: rows already have"):
            run(rows, tmp_path, keep=["split"], split_column="split")

    def test_names_of_splits_after_other_values_are_not_ignored(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "split": split} for split in ("banana", "test")]
        with pytest.raises(DataError, match="its split 'test' is the name of a split, where earlier values are none"):
            self.splits(tmp_path, "split", *rows)

    def test_a_named_column_that_no_row_has_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no row has a column 'fold'"):
            self.splits(tmp_path, "fold", {"text": "a", "label": "b"})

    def test_no_column_is_read_if_none_is_named(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "split": split} for split in ("train", "test")]
        assert self.splits(tmp_path, "", *rows) == ["", ""]

    def test_a_column_by_another_name(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "fold": "train"}, {"text": "a", "label": "b"}]
        assert self.splits(tmp_path, "fold", *rows) == ["train"]
        reasons = [row["reason"] for row in written(tmp_path, "refused")]
        assert reasons == ["fold, the split, is empty"]

    def test_a_later_value_that_is_no_split_is_a_fault_with_its_row(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "b", "split": split} for split in ("train", "banana")]
        with pytest.raises(DataError, match=r"here:2: its split 'banana' is not the name of a split"):
            self.splits(tmp_path, "split", *rows)

    def test_a_row_is_refused_that_contradicts_its_file(self, tmp_path: Path) -> None:
        rows = [
            RawRow(f"f:{n}", "f", {"text": "a", "label": "b", "split": s}, "test")
            for n, s in enumerate(["test", "dev"])
        ]
        assert run(Given(rows), tmp_path, split_column="split", max_refused=0.5).facts["reasons"] == {
            "split says valid, but its file is of test": 1
        }

    def test_what_became_of_the_rows_of_each_split_is_counted(self, tmp_path: Path) -> None:
        def shape(row: Mapping[str, Any]) -> Mapping[str, Any]:
            if row["text"] == "skip":
                raise SkippedRow("not meant")
            return row

        texts = [("Train", "a"), ("test", "a"), ("test", None), ("test", "skip"), ("dev", "skip")]
        rows = [RawRow("f:0", "f", {"split": "train", "text": "a"}, refused="not JSON")]
        rows += [RawRow("f:1", "f", {"split": split, "text": text, "label": "b"}) for split, text in texts]
        rows.append(RawRow("f:2", "f", {"line": "?"}, refused="not JSON"))
        product = run(Given(rows), tmp_path, split_column="split", shape=shape, max_refused=0.9)
        assert product.facts["splits"] == {
            "train": {"rows": 1, "refused": 1},
            "test": {"rows": 1, "refused": 1, "skipped": 1},
            "valid": {"skipped": 1},
        }

    def test_files_and_databases_read_it_by_default(self) -> None:
        assert Files(paths=["a.csv"]).split_column == Sql(url="sqlite://", query="select 1").split_column == "split"


def test_the_message_on_refused_rows_names_the_files_that_have_them(tmp_path: Path) -> None:
    rows = [RawRow(f"{name}:1", name, {"text": "a", "label": label}) for name, label in (("good", "x"), ("bad", None))]
    with pytest.raises(DataError, match=r"^bad: 1 of 2 rows are refused"):
        run(Given(rows), tmp_path)


@pytest.mark.parametrize("rename", [{"text": "body", "label": "body"}, {"text": "label"}])
def test_one_column_is_not_read_as_two(tmp_path: Path, rename: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"text and label would both be read from the source's column"):
        run(given_rows({"body": "a", "label": "b"}), tmp_path, rename=rename)
    swapped = {"text": "label", "label": "text"}
    run(given_rows({"text": "a", "label": "b"}), tmp_path, rename=swapped)
    assert written(tmp_path)[0]["text"] == "b"


def test_odd_values_are_refused_rows_and_no_traceback(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(200_000):  # deeper than the encoder of any supported Python goes
        deep = [deep]
    rows = [
        RawRow("f:1", "f", {"text": "a", "label": "b", "\ud800": 1}),
        RawRow("f:2", "f", {"text": deep, "label": "b"}),
        RawRow("f:3", "f", {"text": "half \ud800", "label": "b"}),
    ]
    assert run(Given(rows), tmp_path, max_refused=0.9).facts["refused"] == 2
    reasons = [row["reason"] for row in written(tmp_path, "refused")]
    assert reasons[0] == "text is not text: lists or objects are nested too deeply"

    def shape(_: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ValueError("unknown role: \ud800")

    good = RawRow("f:4", "f", {"text": "a", "label": "b"})
    run(Given([*rows, good]), tmp_path / "shaped", max_refused=1.0, shape=lambda r: shape(r) if "\ud800" in r else r)
    assert "unknown role: \\ud800" in {row["reason"] for row in written(tmp_path / "shaped", "refused")}


# Labels and lists arrive as text too.
ODD_TEXTS = [
    "[" * 10_000,
    '{"a":' * 10_000,
    "-" * 10_000 + "1",
    "[1, 2",
    "nan",
    "9" * 5000,
    "[" + "9" * 5000 + "]",
    "\ud800",
    "\0",
]
ODD = [
    *map(json.dumps, ODD_TEXTS),
    '["user"]',
    '{"a": ["b"]}',
    "[[[1]]]",
    "5",
    "null",
    "true",
    "[null]",
    "[5]",
    "1e999",
    '[{"role": ["user"], "content": 1}]',
]


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("value", ODD, ids=[value[:12] for value in ODD])
def test_no_objective_meets_an_odd_value_with_a_traceback(kind: str, value: str, tmp_path: Path) -> None:
    objective = OBJECTIVES[kind]()
    names = [*objective.columns, "prompt", "chosen", "rejected", "messages", "conversations", "spans", "entities"]
    for number, name in enumerate(dict.fromkeys(names)):
        columns = dict.fromkeys((*objective.columns, "prompt", "chosen", "rejected"), "x") | {name: json.loads(value)}
        out = tmp_path / str(number)
        try:
            run(given_rows(columns), out, columns=objective.columns, shape=objective.normalize_row, max_refused=1.0)
        except DataError as fault:
            assert "refused" in str(fault) or "no row has a column" in str(fault)


FAILING = """
import sys
from pathlib import Path
from hone.errors import DataError
from hone.sources.files import Files
from hone.sources.ingest import ingest
from hone.sources.splits import read_splits

out = Path(sys.argv[1])
for name in ("ragged.csv", "undecodable.csv", "absent.csv", "other.csv"):
    try:
        ingest(Files(paths=[str(out / name)]), out, columns=["text", "label"], rename={}, keep=[], max_refused=0)
    except DataError as fault:
        print(fault.where)
"""


def test_an_error_is_not_preceded_by_tracebacks_of_files_that_were_being_written(tmp_path: Path) -> None:
    (tmp_path / "ragged.csv").write_text("text,label\n" + "a,x\n" * 12_000 + "b\n")
    (tmp_path / "undecodable.csv").write_bytes(b"text,label\n" + b"a,x\n" * 12_000 + b"\xff,x\n")
    (tmp_path / "other.csv").write_text("text,labels\na,x\n")
    done = subprocess.run([sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr == ""
