from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.config.sections import Ingest
from hone.errors import DataError
from hone.objectives.shared.tagging import find_entities
from hone.objectives.token_classification import TokenClassification
from hone.sources.files import Files
from hone.sources.ingest import ingest
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
    assert [{name: row.values[name] for name in ("tokens", "tags")} for row in found] == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
        {"tokens": ["b"], "tags": ["O"]},
    ]
    assert [row.where for row in found] == ["a.conll:1", "a.conll:2", "a.conll:3"]
    assert not any(row.refused for row in found)


GERMEVAL = (
    "#\tn-tv.de vom 26.02.2005 [2005-02-26] \n1\tSchartau\tB-PER\tO\n2\tsagte\tO\tO\n\n"
    "#\thttp://x.de [2009]\n1\t#\tO\tO\n2\tBonner\tB-LOCderiv\tB-LOC\n"
)


def test_columns_are_chosen_by_their_numbers_and_comments_left_out(tmp_path: Path) -> None:
    both = rows(tmp_path / "a.tsv", GERMEVAL, format="conll")
    assert [row.refused for row in both] == ["", ""]
    assert both[0].values == {
        "tokens": ["1", "2"],
        "tags": ["O", "O"],
        "0": ["1", "2"],
        "1": ["Schartau", "sagte"],
        "2": ["B-PER", "O"],
        "3": ["O", "O"],
    }
    assert (both[1].values["1"], both[1].values["3"]) == (["#", "Bonner"], ["O", "B-LOC"])


def test_the_columns_of_a_run_are_those_of_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(GERMEVAL, encoding="utf8")
    section = Ingest(source={"kind": "files", "paths": [str(path)]}, columns={"tokens": 1, "tags": 2})  # type: ignore[arg-type, dict-item]
    objective = TokenClassification()
    product = ingest(
        Files(paths=[str(path)], format="conll"),
        tmp_path,
        columns=objective.columns,
        rename=section.columns,
        keep=["3"],
        max_refused=0,
        shape=objective.normalize_row,
    )
    assert product.rows == 2
    first = pq.read_table(tmp_path / "rows.parquet").to_pylist()[0]
    assert (first["tokens"], first["tags"], first["3"]) == ('["Schartau", "sagte"]', '["B-PER", "O"]', '["O", "O"]')


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("# sent_id = 1\n# text = a b c\na O\n", [["a"]]),
        ("# O\nfun O\n\n# id 5\n# O\nx O\n", [["#", "fun"], ["#", "x"]]),
        ("#tag\tO\n\na\tO\n", [["#tag"], ["a"]]),
        ("#tag\tO\n", [["#tag"]]),
        ("# a comment and nothing else\n\n-DOCSTART- -X- O\n\n#\tO\nb\tO\n", [["#", "b"]]),
    ],
)
def test_a_number_sign_begins_a_comment_only_where_it_cannot_be_a_token(
    tmp_path: Path, text: str, tokens: list[list[str]]
) -> None:
    found = rows(tmp_path / "a.conll", text)
    assert [row.values["tokens"] for row in found] == tokens
    assert not any(row.refused for row in found)


def test_iob1_tags_name_the_entities_that_they_do_in_conll_2003(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- -X- O\n\nAnn NNP I-NP I-PER\nLee NNP I-NP I-PER\nOslo NNP I-NP I-LOC\nRome NNP I-NP B-LOC\n"
    [row] = rows(tmp_path / "a.conll", text)
    tags = list(TokenClassification().normalize_row(row.values)["tags"])
    assert find_entities(tags, "prefixed") == [(0, 2, "PER"), (2, 3, "LOC"), (3, 4, "LOC")]


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
