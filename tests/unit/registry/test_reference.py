"""What a version remembers of its rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.drift import recent
from hone.errors import DataError
from hone.objectives.chat.objective import Chat
from hone.objectives.embedding import Embedding
from hone.objectives.text_classification import TextClassification
from hone.registry import reference
from hone.registry.row_text import detect_languages, input_text, split_words
from hone.sources.files import Files
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.store.store import Store

TEXTS = [f"where is my card number {i}" for i in range(1195)] + ["hello"] * 4 + ["  "]


def artifact(folder: Path, stage: str, files: dict[str, pa.Table], facts: dict[str, object]) -> Artifact:
    def make(out: Path) -> Product:
        for name, table in files.items():
            pq.write_table(table, out / name)
        return Product(1, tuple(files), dict(facts))

    recipe = Recipe(stage, {"ingest": {"columns": {"text": "body"}}}, {}, {}, {})
    return Store(folder).obtain(recipe, make)[0]


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Artifact]:
    ids = [f"a.csv:{i}" for i in range(len(TEXTS))]
    rows = pa.table({"id": ids, "text": TEXTS, "label": [f"l{i % 3}" for i in range(len(TEXTS))]})
    facts = {"read": 1210, "rows": 1200, "reasons": {"body is null": 7, "topic is null": 3}}
    # Curated text differs: the reference has what came in.
    cleaned = rows.set_column(1, "text", pa.array([text.upper() for text in TEXTS]))
    return {
        "ingest": artifact(tmp_path, "ingest", {"rows.parquet": rows}, facts),
        "validate": artifact(
            tmp_path, "validate", {"train.parquet": cleaned[:900], "test.parquet": cleaned[900:1100]}, {}
        ),
    }


def test_the_memory_has_rows_as_they_came_in_and_the_held_out_ones_whole(
    line: dict[str, Artifact], tmp_path: Path
) -> None:
    memory = reference.write_reference(tmp_path, line, TextClassification())
    assert {file.name: folder for file, folder in memory.files.items()} == {
        "statistics.json": "",
        "reference.parquet": "drift",
        "row_hashes.npy": "drift",
    }
    assert reference.read_rewriters(tmp_path, "tiny") == []  # as in what earlier releases wrote
    ingested, held_out, asked = reference.read_reference(tmp_path)
    assert (len(ingested.texts), len(held_out.texts)) == (1000, 200)
    assert set(ingested.texts) <= set(TEXTS)
    assert {row["text"] for row in asked} == set(TEXTS[900:1100])
    assert [row["text"] for row in asked] == list(held_out.texts)
    # 7 refused for want of a text, 1 blank, of 1,210 read; the label is no input.
    assert ingested.missing == {"text": (8, 1210)}
    told = json.loads((tmp_path / "statistics.json").read_text())
    assert told["languages"]["en"] > 900
    assert told["labels"] == pytest.approx({"l0": 1 / 3, "l1": 1 / 3, "l2": 1 / 3})
    assert told["words"]["rows with"]["card"] > 900
    assert told["length"]["quantiles"]["0.5"] == np.median([len(text) for text in ingested.texts])

    # The same rows give the same memory, on any machine.
    again = tmp_path / "again"
    again.mkdir()
    reference.write_reference(again, line, TextClassification())
    assert (again / "reference.parquet").read_bytes() == (tmp_path / "reference.parquet").read_bytes()


def test_rows_are_told_apart_by_content_whatever_their_order() -> None:
    rows = pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "x"], "label": ["1", "2", "1"]})
    hashes = reference.row_hashes(rows, ("text", "label"))
    assert hashes[0] == hashes[2] != hashes[1]
    backwards = reference.row_hashes(rows.take(pa.array([2, 1, 0])), ("text", "label"))
    assert reference.rows_digest(np.array(hashes, np.uint64)) == reference.rows_digest(np.array(backwards, np.uint64))
    # What stands in which column matters: ("ab", "c") is not ("a", "bc").
    pair = pa.table({"text": ["ab", "a"], "label": ["c", "bc"]})
    assert len(set(reference.row_hashes(pair, ("text", "label")))) == 2


def write(tmp_path: Path, lines: list[str]) -> Files:
    (tmp_path / "recent.csv").write_text("\n".join(lines) + "\n")
    return Files([str(tmp_path / "recent.csv")])


def test_recent_inputs_need_no_labels_and_what_they_lack_is_counted(tmp_path: Path) -> None:
    source = write(tmp_path, ["body,when", *(f"text {i},1" for i in range(50)), '"",2', "a,b,ragged,line"])
    found = recent.read_recent(source, TextClassification(), {"text": "body"}, 20, 1)
    assert (len(found.rows), found.rows_read, found.unreadable) == (20, 51, 1)
    assert found.missing == {"text": (1, 51)}
    assert recent.read_recent(source, TextClassification(), {"text": "body"}, 20, 1) == found
    assert recent.read_recent(source, TextClassification(), {"text": "body"}, 20, 2).rows != found.rows


def test_a_column_that_is_in_no_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'body'"):
        recent.read_recent(write(tmp_path, ["text", "a", "b"]), TextClassification(), {"text": "body"}, 20, 1)


def test_rows_to_learn_from_serve_as_recent_inputs_too(tmp_path: Path) -> None:
    source = write(tmp_path, ["anchor,positive,negatives", "a,b,", "c,d,"])
    assert [dict(row) for row in recent.read_recent(source, Embedding(), {}, 20, 1).rows] == [
        {"text": "a"},
        {"text": "c"},
    ]


def test_texts_are_read_as_the_objective_reads_them() -> None:
    talk = json.dumps([{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Here."}])
    assert "Where is it?" in input_text(Chat(), {"messages": talk})
    assert "role" not in input_text(Chat(), {"messages": talk})
    assert input_text(TextClassification(), {"text": None}) == ""
    assert detect_languages(["Wo ist meine Karte geblieben, bitte?", "where is my card, please?", "12 !?"]) == [
        "de",
        "en",
        "",
    ]
    assert split_words("Wo ist's, bitte?") == ["wo", "ist", "s", "bitte"]
