from __future__ import annotations

import json
import random
import warnings
from typing import Any

import pytest

from hone.objectives.shared import tagging
from hone.objectives.shared.annotations import parse_json, parse_marks
from hone.objectives.shared.spans import read_spans
from hone.objectives.shared.tagging import Entity, find_entities, find_scheme


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["O", "B-PER", "I-PER"], "prefixed"),
        (["S-LOC", "B-PER", "E-PER"], "prefixed"),
        (["I-PER", "O"], "prefixed"),
        (["B", "I", "O"], "prefixed"),
        (["O"], "prefixed"),
        (["PER", "O"], "runs"),
        (["NN", "VB", "-LRB-", ","], "words"),
    ],
)
def test_the_scheme_is_told_by_the_tags(tags: list[str], scheme: str) -> None:
    assert find_scheme(tags) == scheme


def test_a_row_of_tags_with_and_without_prefixes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tags: 'PER' has none of the prefixes that 'B-LOC' has"):
        tagging.check_words(["Oslo", "Ann", "is"], ["B-LOC", "PER", "O"])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-A I-A B-A O", [(0, 2, "A"), (2, 3, "A")]),  # neighbours
        ("B-A I-B O", [(0, 1, "A"), (1, 2, "B")]),  # another type inside
        ("I-A I-A", [(0, 2, "A")]),  # an I- without a B-
        ("S-A S-A B-A E-A", [(0, 1, "A"), (1, 2, "A"), (2, 4, "A")]),
        ("B I O I", [(0, 2, "_"), (3, 4, "_")]),
        ("B-a-b I-a-b", [(0, 2, "a-b")]),
    ],
)
def test_entities_of_tags_with_prefixes(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert find_entities(tags.split(), "prefixed") == expected


def test_entities_without_prefixes_and_parts_of_speech() -> None:
    assert find_entities(["A", "A", "O", "B", "A"], "runs") == [Entity(0, 2, "A"), Entity(3, 4, "B"), Entity(4, 5, "A")]
    assert find_entities(["NN", None, "NN"], "words") == [Entity(0, 1, "NN"), Entity(2, 3, "NN")]
    assert find_entities(["B-A", None, "I-A"], "prefixed") == [Entity(0, 1, "A"), Entity(2, 3, "A")]


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "I"])
def test_entities_are_those_of_seqeval(prefixes: str) -> None:
    reference = pytest.importorskip("seqeval.metrics.sequence_labeling")
    draw = random.Random(3)
    choices = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC-X"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3000):
            tags = draw.choices(choices, k=draw.randrange(9))
            expected = [(start, end + 1, kind) for kind, start, end in reference.get_entities(tags)]
            assert find_entities(tags, "prefixed") == expected


TEXT = "Ann Lee, of Oslo."


def tag_spans(text: str, spans: Any, split: str) -> dict[str, list[str]]:
    marks = parse_marks(parse_json(spans), "spans")
    return tagging.tag_spans(text, read_spans(text, marks).spans, split)


def span(start: int, end: int, label: str = "PER") -> dict[str, Any]:
    return {"start": start, "end": end, "label": label}


def test_spans_become_words_and_tags() -> None:
    expected = {"tokens": ["Ann", "Lee", ",", "of", "Oslo", "."], "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]}
    spans = [span(12, 16, "LOC"), span(0, 7)]
    assert tag_spans(TEXT, spans, "punctuation") == expected
    assert tag_spans(TEXT, json.dumps(spans), "punctuation") == expected
    assert tag_spans(TEXT, [[12, 16, "LOC"], (0, 7, "PER")], "punctuation") == expected
    assert tag_spans(TEXT, [], "spaces") == {"tokens": ["Ann", "Lee,", "of", "Oslo."], "tags": ["O"] * 4}


def test_a_word_is_cut_where_a_span_ends_inside_it() -> None:
    assert tag_spans("the subtypes", [span(4, 7, "X")], "spaces") == {
        "tokens": ["the", "sub", "types"],
        "tags": ["O", "B-X", "O"],
    }
    neighbours = tag_spans("ab", [span(0, 1), span(1, 2)], "spaces")
    assert neighbours == {"tokens": ["a", "b"], "tags": ["B-PER", "B-PER"]}


def test_words_of_scripts_with_marks_stay_whole() -> None:
    text = "हिन्दी cafe\u0301-bar"
    assert [text[a:b] for a, b in tagging.find_word_extents(text, "punctuation")] == ["हिन्दी", "cafe\u0301", "-", "bar"]


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([span(0, 7), span(4, 9)], r"spans: PER 0-7 'Ann Lee' and PER 4-9 'Lee, ' overlap"),
        ([span(12, 18)], r"spans: 12 to 18 of item 0 is not inside the 17 characters"),
        ([span(-1, 2)], "is not inside"),
        ([span(3, 3)], "is not inside"),
        ([span(3, 4)], r"PER 3-4 ' ' holds no word"),
        ([span(0, 3, "")], "item 0 has no label"),
        ([{"start": "0", "end": 3, "label": "A"}], "are not whole numbers"),
        ([7], "item 0 has not the form"),
    ],
)
def test_spans_that_are_not_right_are_refused(spans: list[Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        tag_spans(TEXT, spans, "punctuation")


def test_words_are_read_from_a_list_or_from_plain_text() -> None:
    assert tagging.find_words('["a", "bc"]', "spaces") == ("a bc", [(0, 1), (2, 4)])
    assert tagging.find_words("a  bc!", "punctuation") == ("a  bc!", [(0, 1), (3, 5), (5, 6)])
    assert tagging.find_words("[1] a", "spaces") == ("[1] a", [(0, 3), (4, 5)])
    assert tagging.find_words("", "spaces") == ("", [])
