"""The golden rows: a fixed file, read as a run's source is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.errors import DataError
from hone.objectives.seq2seq import Seq2Seq
from hone.objectives.text_classification import TextClassification
from hone.promotion.rows import load_golden_set
from hone.sources.files import Files
from hone.sources.source import RawRow


@pytest.mark.parametrize("place", ["before", "after"])
def test_golden_rows_that_change_while_they_are_read_are_not_compared(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "golden.csv"
    file.write_text("text,label\na,x\n")
    read = Files.rows

    def changing(self: Files) -> Iterator[RawRow]:
        if place == "before":
            file.write_text("text,label\nb,x\n")
        yield from read(self)
        if place == "after":
            file.write_text("text,label\nb,x\n")

    monkeypatch.setattr(Files, "rows", changing)
    with pytest.raises(DataError, match="changed while it was read"):
        load_golden_set(str(file), TextClassification())
    monkeypatch.undo()
    assert load_golden_set(str(file), TextClassification()).table["text"].to_pylist() == ["b"]


def test_golden_rows_that_an_annotator_rejected_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    rows = [
        {"text": text, "target": "x", "answer": answer, "_task_hash": 1}
        for text, answer in (("a", "accept"), ("b", "reject"))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert load_golden_set(str(file), Seq2Seq()).table["text"].to_pylist() == ["a"]
