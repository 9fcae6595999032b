"""Rows in another form than the objective's columns: named by ingest.columns, nested, left out, noted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.errors import ConfigError, DataError, SkippedRow
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.sources.ingest import ingest
from hone.sources.renaming import rename_columns
from hone.sources.source import RawRow
from hone.store.artifact import Product


@dataclass(frozen=True)
class Rows:
    """A source of these rows."""

    values: tuple[Mapping[str, Any], ...]

    def fingerprint(self, digest: object) -> str:
        return ""

    def rows(self) -> Iterator[RawRow]:
        for number, row in enumerate(self.values, 1):
            yield RawRow(f"here:{number}", "here", dict(row))


def run(part: Objective, out: Path, *values: Mapping[str, Any], **options: Any) -> Product:
    reader = part.start_reading()
    defaults: dict[str, Any] = {"rename": {}, "keep": (), "max_refused": 0.0, "forms": part.forms}
    return ingest(
        Rows(values),
        out,
        **{**defaults, "columns": part.columns, "shape": reader.read, "finish": reader.finish, **options},
    )


def written(out: Path, name: str = "rows") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


TURNS = '[{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]'


@pytest.mark.parametrize(
    ("kind", "row", "columns", "expected"),
    [
        ("chat", {"q": "Hi?", "a": "Ho."}, {"prompt": "q", "completion": "a"}, {"messages": TURNS}),
        ("chat", {"q": "Hi?", "a": "Ho."}, {"instruction": "q", "output": "a"}, {"messages": TURNS}),
        ("chat", {"turns": TURNS}, {"conversations": "turns"}, {"messages": TURNS}),
        (
            "token-classification",
            {"body": "Ann ran", "marks": [{"start": 0, "end": 3, "label": "PER"}]},
            {"text": "body", "spans": "marks"},
            {"tokens": '["Ann", "ran"]', "tags": '["B-PER", "O"]'},
        ),
        (
            "preference",
            {"ask": "Hi", "yes": "Ho", "no": "Hu"},
            {"instruction": "ask", "chosen": "yes", "rejected": "no"},
            {"prompt": "Hi"},
        ),
        ("seq2seq", {"article": "a b", "short": "b"}, {"source": "article", "target": "short"}, {"text": "a b"}),
        ("embedding", {"anchor": "a", "positive": "b", "far": "c"}, {"negative": "far"}, {"negatives": '["c"]'}),
    ],
)
def test_columns_of_every_form_can_be_named(
    tmp_path: Path, kind: str, row: dict[str, Any], columns: dict[str, str], expected: dict[str, str]
) -> None:
    assert run(OBJECTIVES[kind](), tmp_path, row, rename=columns).rows == 1
    [written_row] = written(tmp_path)
    assert {name: written_row[name] for name in expected} == expected


def test_a_column_of_no_form_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column question(.|\n)*another form may have .*prompt, completion"):
        run(OBJECTIVES["chat"](), tmp_path, {"q": "Hi?"}, rename={"question": "q"})


def test_a_wrong_name_is_reported_before_the_rows_that_are_refused_for_it(tmp_path: Path) -> None:
    columns = {"prompt": "question", "completion": "answer"}
    with pytest.raises(DataError, match=r"no row has a column 'question'; the columns are 'quest'(.|\n)*Did you mean"):
        run(OBJECTIVES["chat"](), tmp_path, {"quest": "Hi?", "answer": "Ho."}, rename=columns)


def test_a_forms_column_that_no_row_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has a column 'sources'; the columns are 'text'") as fault:
        row = {"text": "a", "target": "b"}
        run(OBJECTIVES["seq2seq"](), tmp_path, row, rename={"source": "sources"})
    assert "ingest.columns: {source: " in str(fault.value)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("data.text", "a"),
        ("annotations.0.label", "x"),
        ("span.responses.0", "first"),
        ("json.text", "b"),
        ("plain", "c"),
        ("annotations.7.label", None),
        ("plain.text", None),
    ],
)
def test_a_name_may_lead_into_nested_values(theirs: str, expected: str | None) -> None:
    values = {
        "data": {"text": "a"},
        "annotations": [{"label": "x"}],
        "span.responses": ["first"],
        "json": '{"text": "b"}',
        "plain": "c",
    }
    assert rename_columns(values, {"text": theirs}).get("text") == expected


def test_rows_that_are_not_meant_to_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    def shape(values: Mapping[str, Any]) -> Mapping[str, Any]:
        if values["text"] == "no":
            raise SkippedRow("answer is reject")
        return values

    rows = [{"text": text, "label": "x"} for text in ("a", "no", "b")]
    objective = OBJECTIVES["text-classification"]()
    facts = run(objective, tmp_path, *rows, shape=shape, finish=lambda: {"odd": 1}).facts
    assert (facts["read"], facts["rows"], facts["refused"]) == (2, 2, 0)
    assert (facts["skipped"], facts["notes"]) == ({"answer is reject": 1}, {"odd": 1})
    assert [(row["where"], row["reason"]) for row in written(tmp_path, "refused")] == [("here:2", "answer is reject")]


def test_rows_that_are_all_left_out_stop(tmp_path: Path) -> None:
    def shape(values: Mapping[str, Any]) -> Mapping[str, Any]:
        raise SkippedRow("answer is reject")

    with pytest.raises(DataError, match="all of its 1 rows are left out: answer is reject"):
        run(OBJECTIVES["text-classification"](), tmp_path, {"text": "a", "label": "x"}, shape=shape)


def test_a_missing_column_says_which_columns_other_forms_have(tmp_path: Path) -> None:
    row = {"full_text": "Ann ran", "spans": [{"start": 0, "end": 3, "label": "PER"}]}
    with pytest.raises(DataError, match="no row has a column 'tokens'") as fault:
        run(OBJECTIVES["token-classification"](), tmp_path, row, objective="token-classification")
    assert "or map the columns of another form: text, spans" in str(fault.value)
    assert "look like data" not in str(fault.value)


def test_the_choices_of_label_studio_are_labels(tmp_path: Path) -> None:
    def exported(text: str, choice: str) -> dict[str, Any]:
        result = [{"value": {"choices": [choice]}, "from_name": "sentiment", "to_name": "text", "type": "choices"}]
        return {"id": 1, "data": {"text": text}, "annotations": [{"result": result, "was_cancelled": False}]}

    columns = {"text": "data.text", "label": "annotations.0.result.0.value.choices.0"}
    rows = [exported("fine", "good"), exported("awful", "bad")]
    assert run(OBJECTIVES["text-classification"](), tmp_path, *rows, rename=columns).rows == 2
    assert [(row["text"], row["label"]) for row in written(tmp_path)] == [("fine", "good"), ("awful", "bad")]


def test_a_real_corpus_of_spans_is_read_by_naming_its_text(shared: Path, tmp_path: Path) -> None:
    rows = json.loads((shared / "datasets/presidio_pii/generated_small.json").read_text("utf8"))
    objective = OBJECTIVES["token-classification"]()
    facts = run(objective, tmp_path, *rows, rename={"text": "full_text"}, max_refused=0.1).facts
    assert facts["read"] == len(rows) == facts["rows"] + facts["refused"]
    assert set(facts["reasons"]) == {"spans"}
    assert all("is not its own text" in row["reason"] for row in written(tmp_path, "refused"))
