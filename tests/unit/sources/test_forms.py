"""Rows in another form than the objective's columns: named by ingest.columns, nested, left out, noted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.errors import ConfigError, DataError, SkippedRow
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.sources.files import Files
from hone.sources.ingest import ingest
from hone.sources.renaming import rename_columns
from hone.sources.source import RawRow, Source
from hone.store.artifact import Product
from tests.annotation_exports import EXPECTED, EXPORTS, TEXT


@dataclass(frozen=True)
class Rows:
    """A source of these rows."""

    values: tuple[Mapping[str, Any], ...]

    def fingerprint(self, digest: object) -> str:
        return ""

    def rows(self) -> Iterator[RawRow]:
        for number, row in enumerate(self.values, 1):
            yield RawRow(f"here:{number}", "here", dict(row))


def run(
    part: Objective, out: Path, *values: Mapping[str, Any], source: Source | None = None, **options: Any
) -> Product:
    reader = part.start_reading()
    defaults: dict[str, Any] = {"rename": {}, "keep": (), "max_refused": 0.0, "forms": part.form_columns}
    return ingest(
        source or Rows(values),
        out,
        **{**defaults, "columns": part.columns, "shape": reader.read, "finish": reader.finish, **options},
    )


def written(out: Path, name: str = "rows") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


TURNS = '[{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]'
MESSAGES = json.loads(TURNS)
CONVERSATION = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]
SAID = {"role": "assistant", "content": "Ho."}, {"role": "assistant", "content": "Hu."}
TOOLS = [{"name": "look_up", "parameters": {}}]
BITS = OBJECTIVES["multi-label-classification"](label_columns=("x", "y"))  # type: ignore[call-arg]
OBJECTIVE_BY_NAME = {**{kind: part() for kind, part in OBJECTIVES.items()}, "multi-label-classification, columns": BITS}
# Rows in every form that the page of an objective lists; every column of a row decides what is read.
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("text-classification", {"text": "a", "label": "x"}),
    ("multi-label-classification", {"text": "a", "labels": ["x", "y"]}),
    ("multi-label-classification, columns", {"text": "a", "x": 1, "y": 0}),
    ("regression", {"text": "a", "label": 1.5}),
    ("token-classification", {"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"]}),
    ("token-classification", {"text": "Ann ran", "spans": [{"start": 0, "end": 3, "label": "PER"}]}),
    ("question-answering", {"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": [0]}}),
    (
        "question-answering",
        {"question": "a", "context": "b", "answers": [{"text": "c", "answer_start": 0}], "is_impossible": True},
    ),
    ("seq2seq", {"text": "a", "target": ["b", "c"]}),
    ("seq2seq", {"source": ["a.", "b."], "target": "c"}),
    ("chat", {"messages": MESSAGES, "tools": TOOLS}),
    ("chat", {"conversations": CONVERSATION, "system": "Be kind.", "tools": TOOLS}),
    ("chat", {"prompt": "Hi?", "completion": "Ho."}),
    (
        "chat",
        {"instruction": "Hi", "input": "you?", "output": "Ho.", "system": "Be kind.", "history": [["One?", "Two."]]},
    ),
    ("chat", {"instruction": "Hi", "instances": [{"input": "you?", "output": "Ho."}]}),
    ("preference", {"prompt": "Hi?", "chosen": " Ho.", "rejected": " Hu."}),
    (
        "preference",
        {"instruction": "Hi", "input": "you?", "system": "Be kind.", "history": [["One?", "Two."]]}
        | {"chosen": "Ho.", "rejected": "Hu."},
    ),
    ("preference", {"conversations": CONVERSATION[:1], "chosen": SAID[0], "rejected": SAID[1]}),
    ("preference", {"messages": MESSAGES[:1], "chosen": SAID[0], "rejected": SAID[1]}),
    ("preference", {"chosen_messages": MESSAGES, "rejected_messages": [MESSAGES[0], SAID[1]]}),
    ("preference", {"prompt": "Hi?", "completion": " Ho.", "label": True}),
    ("preference", {"messages": MESSAGES, "kto_tag": False}),
    ("causal-lm", {"text": "a"}),
    ("masked-lm", {"text": "a"}),
    ("span-corruption", {"text": "a"}),
    ("embedding", {"anchor": "a", "positive": "b", "negatives": ["c", "d"]}),
    ("embedding", {"anchor": "a", "positive": "b", "negative": "c"}),
]


def read_file(kind: str, row: Mapping[str, Any], folder: Path, columns: Mapping[str, str]) -> dict[str, Any]:
    """The objective's columns of the only row of a file, read with these `ingest.columns`."""
    (folder / "rows.jsonl").write_text(json.dumps(row))
    part = OBJECTIVE_BY_NAME[kind]
    run(part, folder, source=Files(paths=[str(folder / "rows.jsonl")]), rename=columns)
    [written_row] = written(folder)
    return {name: written_row[name] for name in part.columns}


@pytest.mark.parametrize(("kind", "row"), FORMS, ids=[f"{kind} {' '.join(row)}" for kind, row in FORMS])
def test_every_column_of_a_form_may_have_another_name_in_the_file(
    kind: str, row: dict[str, Any], tmp_path: Path
) -> None:
    expected = read_file(kind, row, tmp_path, {})
    for column in row:
        renamed = {f"our_{name}" if name == column else name: value for name, value in row.items()}
        assert read_file(kind, renamed, tmp_path, {column: f"our_{column}"}) == expected, column
        missing = {name: value for name, value in row.items() if name != column} | {"other": "a"}
        with pytest.raises(DataError, match=f"no row has a column 'our_{column}'"):
            read_file(kind, missing, tmp_path, {column: f"our_{column}"})
    # The names of the form, each for the value of another column.
    theirs = dict(zip(row, [*list(row)[1:], next(iter(row))], strict=True))
    permuted = {theirs[name]: value for name, value in row.items()}
    assert read_file(kind, permuted, tmp_path, theirs) == expected


@pytest.mark.parametrize("export", EXPORTS)
def test_the_text_and_spans_of_an_annotation_export_may_have_other_names(export: str, tmp_path: Path) -> None:
    row = EXPORTS[export]
    if "data" in row:
        renamed = {"task": {"body": TEXT}, "done": row["annotations"]}
        columns = {"text": "task.body", "spans": "done.0.result"}
    else:
        column = next(name for name in ("spans", "entities", "annotation", "labels", "label") if name in row)
        renamed = {**row, "body": row["text"], "marks": row[column]}
        del renamed["text"], renamed[column]
        columns = {"text": "body", "spans": "marks"}
    tagged = read_file("token-classification", renamed, tmp_path, columns)
    assert {name: json.loads(value) for name, value in tagged.items()} == EXPECTED


def test_a_name_is_not_blamed_for_rows_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "Hi?"\n')
    source = Files(paths=[str(tmp_path / "rows.jsonl")])
    with pytest.raises(DataError, match="1 of 1 rows are refused"):
        run(OBJECTIVES["chat"](), tmp_path, source=source, rename={"prompt": "q", "completion": "a"})


def test_a_column_under_its_own_name_may_be_missing(tmp_path: Path) -> None:
    columns = {"text": "text", "labels": "labels"}  # as in conf/multi-label.yaml, to which label_columns may be added
    assert run(BITS, tmp_path, {"text": "a", "x": 1, "y": 0}, rename=columns).rows == 1
    assert written(tmp_path)[0]["labels"] == '["x"]'


def test_every_column_of_every_objective_is_in_one_of_these_forms() -> None:
    named = {(kind, column) for kind, row in FORMS for column in row}
    for kind, part in OBJECTIVE_BY_NAME.items():
        filled = {"labels"} if part.form_columns == ("x", "y") else set()  # made of the columns of 0 and 1
        assert {column for name, column in named if name == kind} == {*part.columns, *part.form_columns} - filled


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


@pytest.mark.parametrize(
    ("kind", "row"),
    [(kind, row) for kind, row in FORMS if len(row) > 1],
    ids=[f"{kind} {' '.join(row)}" for kind, row in FORMS if len(row) > 1],
)
def test_two_columns_of_a_form_are_not_read_from_one(kind: str, row: dict[str, Any], tmp_path: Path) -> None:
    for first, second in combinations(row, 2):
        with pytest.raises(ConfigError, match=r"would both be read from the source's column 'ours'"):
            read_file(kind, row | {"ours": row[first]}, tmp_path, {first: "ours", second: "ours"})


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


@pytest.mark.parametrize(("kind", "row"), FORMS, ids=[f"{kind} {' '.join(row)}" for kind, row in FORMS])
def test_what_an_annotator_rejected_is_left_out_in_every_form_of_every_objective(
    kind: str, row: dict[str, Any], tmp_path: Path
) -> None:
    answers = [row | {"answer": answer, "_task_hash": 3} for answer in ("accept", "reject", "ignore")]
    own_column = row | {"answer": "reject"}  # of the data: nothing shows that Prodigy wrote it
    facts = run(
        OBJECTIVE_BY_NAME[kind], tmp_path, *answers, row | {"status": "Discarded", "annotation": "x"}, own_column
    ).facts
    expected = {"answer is reject": 1, "answer is ignore": 1, "status is discarded": 1}
    if "spans" in row:  # a column of Prodigy too
        expected["answer is reject"] = 2
    assert (facts["refused"], facts["skipped"]) == (0, expected)
    assert facts["read"] == 5 - sum(expected.values())


def argilla_record(question: str, *responses: tuple[Any, str | None]) -> dict[str, Any]:
    """A record as argilla 2 exports it: `records.to_list(flatten=True)`, `to_json` or `to_datasets`."""
    record = {"id": "a", "status": "completed" if responses else "pending", "_server_id": "b", "text": TEXT}
    if not responses:
        return record
    answers, statuses = map(list, zip(*responses, strict=True))
    columns = {"": answers, ".users": ["c"] * len(answers), ".status": statuses}
    return {**record, **{f"{question}.responses{end}": values for end, values in columns.items()}}


def test_records_of_argilla_2_are_read_and_what_was_discarded_is_left_out(tmp_path: Path) -> None:
    spans = [{"label": "PER", "start": 0, "end": 7}, {"label": "LOC", "start": 11, "end": 15}]
    records = [
        argilla_record("span", (spans, "submitted"), ([], "draft")) | {"span.suggestion": []},
        argilla_record("span", ([], "discarded")),
        argilla_record("span"),
    ]
    objective = OBJECTIVES["token-classification"]()
    facts = run(objective, tmp_path, *records, rename={"spans": "span.responses.0"}).facts
    assert (facts["rows"], facts["skipped"]) == (1, {"response is discarded": 1, "not annotated": 1})
    [row] = written(tmp_path)
    assert {name: json.loads(row[name]) for name in EXPECTED} == EXPECTED

    records = [argilla_record("mood", *answers) for answers in ([("good", None)], [("bad", "discarded")], [])]
    facts = run(OBJECTIVES["text-classification"](), tmp_path, *records, rename={"label": "mood.responses.0"}).facts
    assert (facts["rows"], facts["skipped"]) == (1, {"response is discarded": 1, "not annotated": 1})
    assert [(row["text"], row["label"]) for row in written(tmp_path)] == [(TEXT, "good")]


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
