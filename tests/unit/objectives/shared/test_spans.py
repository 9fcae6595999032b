from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hone.errors import DataError
from hone.objectives.shared.annotations import Mark
from hone.objectives.shared.span_account import SpanAccount
from hone.objectives.shared.spans import is_inside_word, read_spans
from hone.objectives.token_classification import TokenClassification

EMOJI = "\U0001f600 Paris is nice"
UMLAUT = "Köln is nice, Zürich too"


@pytest.mark.parametrize(
    ("text", "start", "end", "own", "unit"),
    [
        (EMOJI, 3, 8, "Paris", "utf-16"),
        (EMOJI, 5, 10, "Paris", "bytes"),
        (EMOJI, 2, 7, "Paris", "characters"),
        (UMLAUT, 15, 22, "Zürich", "bytes"),
        (UMLAUT, 14, 20, "Zürich", "characters"),
        ("Paris", 0, 5, "Paris", "characters"),
        ("New\n  York", 0, 10, "New York", "characters"),
    ],
)
def test_a_spans_own_text_shows_what_its_offsets_count(text: str, start: int, end: int, own: str, unit: str) -> None:
    reading = read_spans(text, [Mark(start, end, "LOC", own)])
    assert reading.unit == unit
    assert [text[span.start : span.end].split() for span in reading.spans] == [own.split()]
    assert reading.is_proved == (not text.isascii())
    assert not reading.is_open


def test_a_span_that_is_not_where_its_text_is_is_refused_with_the_place() -> None:
    with pytest.raises(ValueError, match=r"LOC 1-6 'aris ' is not its own text 'Paris'; that is at 0-5"):
        read_spans("Paris is nice", [Mark(1, 6, "LOC", "Paris")])
    with pytest.raises(ValueError, match=r"is not its own text 'Rome'$"):
        read_spans("Paris is nice", [Mark(0, 5, "LOC", "Rome")])


def test_an_offset_that_fits_in_another_unit_alone_says_so() -> None:
    with pytest.raises(ValueError, match=r"not inside the 5 characters of the text; if it counts utf-16, set obj"):
        read_spans("\U0001f600Rome", [Mark(2, 6, "LOC")])


@pytest.mark.parametrize(
    ("text", "index", "inside"),
    [
        ("Paris", 1, True),
        ("Paris is", 5, False),
        ("cafe\u0301s", 4, True),
        ("5km", 1, False),
        ("1990", 2, True),
        ("a-b", 1, False),
        ("東京は", 2, False),
        ("서울은", 2, False),
        ("กรุงเทพ", 2, False),
        ("x", 0, False),
        ("x", 1, False),
    ],
)
def test_where_a_word_is_cut(text: str, index: int, inside: bool) -> None:
    assert is_inside_word(text, index) == inside


def account(*rows: tuple[str, list[Mark]], share: float = 0.01) -> SpanAccount:
    counts = SpanAccount(share)
    for text, marks in rows:
        counts.add(text, marks, read_spans(text, marks))
    return counts


def test_converted_offsets_are_said_once_with_their_number() -> None:
    counts = account(*[(EMOJI, [Mark(3, 8, "LOC", "Paris")])] * 3, ("Rome", [Mark(0, 4, "LOC", "Rome")]))
    counts.check()
    assert counts.list_notes() == {"texts whose span offsets count utf-16, converted": 3}


def test_rows_without_texts_of_their_own_are_not_guessed_where_others_count_otherwise() -> None:
    with pytest.raises(
        DataError, match=r"offsets count utf-16 in 1 rows; 2 other rows(.|\n)*objective.offsets: utf-16"
    ):
        account((EMOJI, [Mark(3, 8, "LOC", "Paris")]), *[(EMOJI, [Mark(2, 7, "LOC")])] * 2).check()


def test_many_spans_that_cut_words_stop_with_what_they_seem_to_count() -> None:
    with pytest.raises(DataError) as fault:
        account((EMOJI, [Mark(3, 8, "LOC")]), ("Paris is", [Mark(0, 5, "LOC")])).check()
    message = str(fault.value)
    assert "1 of 2 spans (50.0%) begin or end inside a word, as wrong offsets do: LOC 3-8 'aris '" in message
    assert "if offsets were utf-16: then set objective.offsets: utf-16" in message
    assert "objective.max_subword_spans: 1" in message
    with pytest.raises(DataError, match="counted from 1: then correct them"):
        account(("We see Paris now", [Mark(8, 13, "LOC")])).check()
    with pytest.raises(DataError, match="with the end included"):
        account(("We see Paris now", [Mark(7, 11, "LOC")])).check()


def test_parts_of_words_may_be_meant() -> None:
    rows = ("the subtypes", [Mark(4, 7, "X")])
    counts = account(rows, share=1)
    counts.check()
    assert counts.list_notes() == {"spans that begin or end inside a word": 1}
    account(("the subtypes", [Mark(4, 7, "X", "sub")])).check()  # its own text shows that it is meant


def run(*rows: dict[str, Any], **options: Any) -> tuple[list[Any], dict[str, int]]:
    reader = TokenClassification(**options).start_reading()
    return [reader.read(row) for row in rows], dict(reader.finish())


def test_rows_with_offsets_in_utf16_units_become_the_right_words() -> None:
    span = {"start": 3, "end": 8, "text": "Paris", "label": "LOC"}
    [row], notes = run({"text": EMOJI, "spans": [span]})
    assert row["tokens"][1] == "Paris"
    assert row["tags"] == ["O", "B-LOC", "O", "O"]
    assert notes == {"texts whose span offsets count utf-16, converted": 1}
    del span["text"]
    [row], _ = run({"text": EMOJI, "spans": [span]}, offsets="utf-16")
    assert row["tags"] == ["O", "B-LOC", "O", "O"]
    with pytest.raises(DataError, match="begin or end inside a word"):
        run({"text": EMOJI, "spans": [span]})


def test_the_spans_of_a_real_file_are_read_and_those_off_by_one_are_refused(shared: Path) -> None:
    rows = json.loads((shared / "datasets/presidio_pii/generated_small.json").read_text("utf8"))
    begun: Counter[str] = Counter()
    refused = []
    for row in rows:
        try:
            tagged = TokenClassification().normalize_row({"text": row["full_text"], "spans": row["spans"]})
            begun.update(tag[2:] for tag in tagged["tags"] if tag.startswith("B-"))
        except ValueError as fault:
            refused.append(str(fault))
    right, wrong = [], []
    for row in rows:
        own_texts = [
            (row["full_text"][s["start_position"] : s["end_position"]], s["entity_value"]) for s in row["spans"]
        ]
        (right if all(a == b for a, b in own_texts) else wrong).append(row)
    assert begun == Counter(span["entity_type"] for row in right for span in row["spans"])
    assert len(refused) == len(wrong) > 0
    assert all("is not its own text" in reason for reason in refused)
