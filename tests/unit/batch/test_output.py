"""One output file by its suffix, and what an earlier output at its path means."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.batch import answers
from hone.batch.output import Account, commit_output, find_finished
from hone.batch.request import Batch, Request, build_source, check_output
from hone.batch.rows import list_shards, read_rows
from hone.batch.writers import write_csv, write_jsonl
from hone.environment import Home
from hone.errors import ConfigError, StoreError
from hone.store.artifact import Product
from hone.store.recipe import Recipe


def make_batch(home: Home, source: Path, output: str) -> Batch:
    request = Request(model="m", version="1", source={"kind": "files", "paths": [str(source)]}, output=output)
    data = build_source(request).fingerprint(home.store.memo.digest)
    return Batch(request, "m", "1", "proof", ("text",), {"label": "string", "score": "double"}, data)


def commit(home: Home, batch: Batch) -> dict[str, Any]:
    """Answer each row with its number, the second one with a reason, and write the output."""

    def write(out: Path) -> Product:
        columns = {"label": pa.array(["a", None, "c"]), "score": pa.array([0.5, None, 0.25])}
        answers._write_table(columns, [None, "text is empty", None], out / answers.ANSWERS)
        return Product(3, (answers.ANSWERS,), {"unanswered": 1})

    rows = read_rows(batch, home)
    assert len(list_shards(rows)) == 1
    answer, _ = home.store.obtain(Recipe("batch-answers", {}, {}, {}, {}), write)
    return commit_output(batch, rows, [answer], home)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = ['say "hi",\nthen go', "", "grüße"]
    path.write_text("".join(json.dumps({"id": i, "text": text, "tags": [i]}) + "\n" for i, text in enumerate(texts)))
    return path


def test_csv_has_a_header_and_one_record_for_each_row(home: Home, source: Path, tmp_path: Path) -> None:
    account = commit(home, make_batch(home, source, str(tmp_path / "out.csv")))
    with (tmp_path / "out.csv").open(newline="", encoding="utf8") as lines:
        records = list(csv.DictReader(lines))
    assert (account["rows"], account["unanswered"]) == (3, 1)
    assert records[0] == {
        "id": "0",
        "text": 'say "hi",\nthen go',
        "tags": "[0]",
        "prediction": "a",
        "score": "0.5",
        "model_version": "models:/m/1",
        "reason": "",
    }
    assert [(record["text"], record["prediction"], record["reason"]) for record in records[1:]] == [
        ("", "", "text is empty"),
        ("grüße", "c", ""),
    ]


def test_jsonl_has_one_object_for_each_row(home: Home, source: Path, tmp_path: Path) -> None:
    commit(home, make_batch(home, source, str(tmp_path / "out.JSONL")))
    records = [json.loads(line) for line in (tmp_path / "out.JSONL").read_text("utf8").splitlines()]
    assert [record["id"] for record in records] == [0, 1, 2]
    assert records[2] | {} == {
        "id": 2,
        "text": "grüße",
        "tags": [2],
        "prediction": "c",
        "score": 0.25,
        "model_version": "models:/m/1",
        "reason": None,
    }
    assert "grüße" in (tmp_path / "out.JSONL").read_text("utf8")


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_the_same_again_is_found_and_an_edited_file_is_not_overwritten(
    name: str, home: Home, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    batch = make_batch(home, source, str(out))
    assert find_finished(batch, home) == {}
    account = commit(home, batch)
    assert out.is_file()
    assert json.loads((tmp_path / f"{name}.json").read_text())["files"][0]["rows"] == 3
    assert find_finished(batch, home)["key"] == account["key"]
    source.write_text(source.read_text() + "\n")  # other bytes: the output is replaced
    assert find_finished(make_batch(home, source, str(out)), home) == {}
    if name == "out.parquet":
        pq.write_table(pq.read_table(out).replace_schema_metadata({}), out)
    else:
        out.write_bytes(out.read_bytes().replace(b"c", b"d"))
    with pytest.raises(ConfigError, match="it is not overwritten"):
        find_finished(batch, home)


@pytest.mark.parametrize("text", ["[1]", "{}", '{"files": [1]}', "no JSON", '"text"'])
def test_a_file_with_the_json_file_of_another_program_is_not_overwritten(
    text: str, home: Home, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("a\n1\n")
    (tmp_path / "out.csv.json").write_text(text)
    with pytest.raises(ConfigError, match="it is not overwritten"):
        find_finished(make_batch(home, source, str(tmp_path / "out.csv")), home)


def test_a_kill_while_an_output_is_replaced_leaves_one_that_can_be_written_again(
    home: Home, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    commit(home, make_batch(home, source, str(out)))
    source.write_text(source.read_text() + "\n")
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == out:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            commit(home, make_batch(home, source, str(out)))
    assert find_finished(make_batch(home, source, str(out)), home) == {}
    commit(home, make_batch(home, source, str(out)))
    assert find_finished(make_batch(home, source, str(out)), home)


def flip_last_byte(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("stage", ["batch-rows", "batch-answers"])
def test_no_output_is_written_of_damaged_rows_or_answers(
    stage: str, home: Home, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged while the batch runs is one error, and made again when it is repeated."""
    batch = make_batch(home, source, str(tmp_path / "out.csv"))
    serve_lengths(monkeypatch)

    def predict() -> Account:
        rows = read_rows(batch, home)
        answered = [answers.answer_shard(batch, shard, home)[0] for shard in list_shards(rows)]
        if not damages:
            file = list_shards(rows)[0].rows_file if stage == "batch-rows" else answered[0].path / answers.ANSWERS
            flip_last_byte(file)
            damages.append(file)
        return commit_output(batch, rows, answered, home)

    damages: list[Path] = []
    with pytest.raises(StoreError, match="its bytes differ") as fault:
        predict()
    assert fault.value.where == str(damages[0]) and not (tmp_path / "out.csv").exists()
    assert predict()["rows"] == 3
    assert "grüße" in (tmp_path / "out.csv").read_text("utf8")


@pytest.mark.parametrize("stage", ["batch-rows", "batch-answers"])
def test_damaged_rows_and_answers_of_an_interrupted_batch_are_made_again(
    stage: str,
    home: Home,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = make_batch(home, source, str(tmp_path / "out.csv"))
    serve_lengths(monkeypatch)
    rows = read_rows(batch, home)
    [shard] = list_shards(rows)
    answered, _ = answers.answer_shard(batch, shard, home)
    whole = pq.read_table(answered.path / answers.ANSWERS)
    file = answered.path / answers.ANSWERS if stage == "batch-answers" else shard.inputs_file
    flip_last_byte(file)
    assert read_rows(batch, home) == rows
    again, existed = answers.answer_shard(batch, shard, home)
    assert existed == (stage == "batch-rows")
    assert pq.read_table(again.path / answers.ANSWERS) == whole and not home.store.verify(rows)
    assert str(file) in caplog.text


def serve_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A served model whose answers are the texts' lengths."""

    def predict(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"label": list(frame["text"]), "score": [float(len(text)) for text in frame["text"]]})

    monkeypatch.setattr(answers, "load_served", lambda *_: (predict, (ValueError,)))


def test_a_directory_is_not_replaced_by_a_file(home: Home, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(ConfigError, match=r"out\.csv: is a directory"):
        find_finished(make_batch(home, source, str(tmp_path / "out.csv")), home)


def test_parts_are_written_into_a_directory_whose_name_ends_with_a_slash(
    home: Home, source: Path, tmp_path: Path
) -> None:
    commit(home, make_batch(home, source, f"{tmp_path}/scored.v2/"))
    assert (tmp_path / "scored.v2/part-00000.parquet").is_file()


@pytest.mark.parametrize("output", ["out.txt", "out.xlsx", "out.csv.gz", "scored.v2"])
def test_a_suffix_that_cannot_be_written_is_refused(output: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"files {Path(output).suffix} cannot be written\n.*\.parquet, \.csv or "):
        check_output(output)
    check_output(f"{output}/")
    (tmp_path / output).mkdir()  # of an earlier run
    check_output(output)


def test_values_without_a_form_in_csv_or_json_are_text(tmp_path: Path) -> None:
    table = pa.table({"day": [date(2026, 1, 2)], "more": [{"a": float("nan"), "b": [1.5]}], "score": [float("inf")]})
    write_jsonl(tmp_path / "a.jsonl", iter([table]), table.schema)
    record = json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=pytest.fail)
    assert record == {"day": "2026-01-02", "more": {"a": None, "b": [1.5]}, "score": None}
    write_csv(tmp_path / "a.csv", iter([table.select(["day", "more"])]), table.select(["day", "more"]).schema)
    [row] = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert row == {"day": "2026-01-02", "more": '{"a": null, "b": [1.5]}'}


def test_bytes_and_durations_are_plain_text(tmp_path: Path) -> None:
    columns = {"took": [timedelta(seconds=5), None], "raw": [b"ab", b"\xff"], "kind": ["x", "y"]}
    table = pa.table({**columns, "kind": pa.array(columns["kind"]).dictionary_encode()})
    expected = [{"took": "0:00:05", "raw": "ab", "kind": "x"}, {"took": "", "raw": "b'\\xff'", "kind": "y"}]
    write_csv(tmp_path / "a.csv", iter([table]), table.schema)
    assert list(csv.DictReader((tmp_path / "a.csv").open())) == expected
    write_jsonl(tmp_path / "a.jsonl", iter([table]), table.schema)
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert records == [expected[0], expected[1] | {"took": None}]
