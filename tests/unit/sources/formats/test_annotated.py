from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.errors import DataError
from hone.sources.files import Files
from hone.sources.source import RawRow

SQUAD: dict[str, Any] = {
    "version": "v2.0",
    "data": [
        {
            "title": "Rivers",
            "paragraphs": [
                {
                    "context": "The Rhine is 1,233 km long.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "How long is the Rhine?",
                            "is_impossible": False,
                            "answers": [
                                {"text": "1,233 km", "answer_start": 13},
                                {"text": "1,233", "answer_start": 13},
                            ],
                        },
                        {
                            "id": "b",
                            "question": "How deep is it?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "1,233 km", "answer_start": 13}],
                        },
                    ],
                }
            ],
        }
    ],
}


def rows(path: Path, text: str, **options: Any) -> list[RawRow]:
    path.write_text(text, encoding="utf8")
    return list(Files(paths=[str(path)], **options).rows())


def test_sentences_are_parted_by_empty_lines_and_document_marks_are_left_out(tmp_path: Path) -> None:
    sentences = ["EU NNP I-NP B-ORG\nrejects VBZ I-VP O\n \t\n", "Peter NNP I-NP B-PER", "b c d O"]
    mark = "-DOCSTART- -X- O O\n"
    text = f"{mark}\n{sentences[0]}\n{sentences[1]}\n{mark}{sentences[2]}"
    found = rows(tmp_path / "a.conll", text)
    assert [row.values for row in found] == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
        {"tokens": ["b"], "tags": ["O"]},
    ]
    assert [row.where for row in found] == ["a.conll:1", "a.conll:2", "a.conll:3"]
    assert not any(row.refused for row in found)


@pytest.mark.parametrize("separator", ["\t", " ", "   "])
def test_columns_are_parted_by_a_tab_or_by_spaces(tmp_path: Path, separator: str) -> None:
    text = f"Bonn{separator}B-LOC\r\n,{separator}O\r\n\r\n"
    [row] = rows(tmp_path / "a.tsv", text, format="conll")
    assert row.values == {"tokens": ["Bonn", ","], "tags": ["B-LOC", "O"]}


def test_in_a_file_with_tabs_a_token_may_hold_a_space(tmp_path: Path) -> None:
    [row] = rows(tmp_path / "a.bio", "New York\tB-LOC\n1\u00a0000\tO\n")
    assert row.values["tokens"] == ["New York", "1\u00a0000"]


def test_a_ragged_sentence_is_refused_with_its_line_and_the_others_stay(tmp_path: Path) -> None:
    text = "a\tx\tO\n\nb\tO\nc\ty\tO\n\nd\tz\tO\n\nlone\n"
    found = rows(tmp_path / "a.conll", text)
    assert [row.refused for row in found] == [
        "",
        "ragged: 2 columns in line 3, 3 in the first",
        "",
        "one column instead of a token and its tag: line 8",
    ]
    assert found[1].where == "a.conll:2"
    assert found[1].values["tokens"] == ["b", "c"]


def test_a_nul_character_is_refused(tmp_path: Path) -> None:
    assert [row.refused for row in rows(tmp_path / "a.conll", "a\0\tO\n")] == ["contains a NUL character: line 1"]


def test_a_squad_file_is_a_row_for_each_question(tmp_path: Path) -> None:
    found = rows(tmp_path / "dev.json", json.dumps(SQUAD), format="squad")
    shared = {"title": "Rivers", "context": "The Rhine is 1,233 km long."}
    assert [row.values for row in found] == [
        {
            **shared,
            "question_id": "a",
            "question": "How long is the Rhine?",
            "answers": {"text": ["1,233 km", "1,233"], "answer_start": [13, 13]},
        },
        {**shared, "question_id": "b", "question": "How deep is it?", "answers": {"text": [], "answer_start": []}},
    ]
    assert not any(row.refused for row in found)


def test_a_question_without_a_list_of_answers_is_refused(tmp_path: Path) -> None:
    qas = [{"id": "a", "question": "q"}, {"id": "b", "question": "q", "answers": ["x"]}, "q"]
    whole = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": qas}]}]}
    reasons = [row.refused for row in rows(tmp_path / "a.json", json.dumps(whole), format="squad")]
    assert reasons == [*["answers: not a list of {text, answer_start}"] * 2, "qas: an item is not an object"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "has no list data"),
        (
            '{"data": [{"paragraphs": [{"context": "c"}]}]}',
            r"a.json, data\[0\].paragraphs\[0\]: has no list qas",
        ),
        ('{"data": [', "malformed JSON"),
    ],
)
def test_a_file_of_another_form_stops_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(tmp_path / "a.json", text, format="squad")


def test_ncbi_disease_has_as_many_sentences_as_are_published(shared: Path) -> None:
    source = Files(
        paths=[str(shared / "datasets/ncbi_disease/*.tsv")],
        format="conll",
        splits={"train": "train.tsv", "valid": "devel.tsv", "test": "test.tsv"},
    )
    found = list(source.rows())
    assert not any(row.refused for row in found)
    counts = {split: sum(row.split == split for row in found) for split in ("train", "valid", "test")}
    assert counts == {"train": 5424, "valid": 923, "test": 940}
    begun = sum(tag.startswith("B-") for row in found if row.split == "test" for tag in row.values["tags"])
    assert begun == 960


def test_xquad_has_as_many_questions_as_are_published(shared: Path) -> None:
    found = list(Files(paths=[str(shared / "datasets/xquad/*.json")], format="squad").rows())
    assert len(found) == len({row.values["question_id"] for row in found}) == 1190
    assert len({row.values["context"] for row in found}) == 240


@pytest.mark.parametrize(
    "whole", ['{"data": [{"paragraphs": [5]}]}', '{"data": [5]}', "[5]", '{"data": [{"paragraphs": 5}]}']
)
def test_what_is_not_of_squads_structure_is_one_error(whole: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(whole)
    with pytest.raises(DataError, match="not SQuAD's format"):
        list(Files(paths=[str(tmp_path / "a.json")], format="squad").rows())
