"""Exports of annotation tools, as these tools write them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.errors import DataError, SkippedRow
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.shared.annotations import find_annotated
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification
from tests.annotation_exports import EXPECTED, EXPORTS, RESULT, TEXT, label_studio


@pytest.mark.parametrize("row", EXPORTS.values(), ids=EXPORTS)
def test_every_tools_export_becomes_words_and_tags(row: dict[str, Any]) -> None:
    assert TokenClassification().normalize_row(row) == EXPECTED


@pytest.mark.parametrize(
    "row",
    [
        EXPORTS["doccano"] | {"label": []},
        {"text": TEXT, "spans": ""},
        label_studio([]),
        EXPORTS["Prodigy"] | {"spans": []},
    ],
)
def test_a_text_without_entities_is_a_row(row: dict[str, Any]) -> None:
    assert TokenClassification().normalize_row(row)["tags"] == ["O"] * 4


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (EXPORTS["Prodigy"] | {"answer": "reject"}, "answer is reject"),
        (EXPORTS["Prodigy"] | {"answer": "ignore"}, "answer is ignore"),
        (EXPORTS["argilla"] | {"status": "Discarded"}, "status is discarded"),
        (label_studio(RESULT, was_cancelled=True), "annotation was cancelled"),
        (label_studio(), "not annotated"),
    ],
)
def test_what_an_annotator_did_not_accept_is_left_out(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(SkippedRow, match=reason):
        TokenClassification().start_reading().read(row)


def test_an_empty_list_of_annotations_beside_labels_says_nothing() -> None:
    labelled = {"text": "a", "label": "x", "annotations": []}
    assert TextClassification().normalize_row(labelled)["label"] == "x"
    words = {"tokens": ["a", "b"], "tags": ["O", "B-X"], "annotations": []}
    assert TokenClassification().normalize_row(words)["tags"] == ["O", "B-X"]
    with pytest.raises(SkippedRow, match="not annotated"):
        TextClassification().start_reading().read({"data": {"text": "a"}, "annotations": "[]", "label": "x"})


def test_a_second_annotators_work_is_counted() -> None:
    notes: Counter[str] = Counter()
    annotated = find_annotated(label_studio(RESULT, RESULT), notes)
    assert annotated is not None and len(annotated[1]) == 2
    assert notes == {"annotations by a second annotator, left out": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a", "spans": [{"start": 0, "end": 1, "labels": ["A", "B"]}]}, "item 0 has several labels"),
        ({"text": "a b", "entities": [["T1", "A", [[0, 1], [2, 3]]]]}, "item 0 is not in one piece"),
        ({**label_studio(RESULT), "data": {"a": "x", "b": "y"}}, "which is the text, a, b.* ingest.columns"),
    ],
)
def test_what_cannot_be_read_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TokenClassification().normalize_row(row)


@pytest.mark.parametrize("objective", [TextClassification(), MultiLabelClassification()])
@pytest.mark.parametrize("name", ["doccano", "doccano, older releases", "Label Studio, JSON-MIN", "spans as JSON text"])
def test_spans_given_to_another_objective_say_what_they_are_for(objective: Any, name: str) -> None:
    row = EXPORTS[name]
    values = {"text": TEXT, "label": row.get("label", row.get("labels"))}
    values["labels"] = values["label"]
    with pytest.raises(ValueError, match=r"spans.*token-classification") as fault:
        objective.normalize_row(values)
    assert "multi-label-classification" not in str(fault.value)


SCALARS = st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_subnormal=False) | st.text(max_size=3)
KEYS = st.sampled_from(
    ["start", "end", "label", "labels", "text", "value", "result", "type", "was_cancelled", "start_offset", "entity"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
NAMES = [
    "text",
    "spans",
    "entities",
    "labels",
    "label",
    "annotation",
    "annotations",
    "data",
    "answer",
    "status",
    "tags",
]


@settings(max_examples=400, deadline=None, database=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "tokens"]), JSON, max_size=5))
def test_whatever_is_in_a_row_it_is_read_or_refused(row: dict[str, Any]) -> None:
    for objective in (TokenClassification(), TextClassification(), MultiLabelClassification(separator=",")):
        reader = objective.start_reading()
        with suppress(ValueError):  # of which SkippedRow is one
            reader.read(row)
        with suppress(DataError):
            reader.finish()
