"""A row of each annotation tool's export: the same text and spans, as these tools write them."""

from __future__ import annotations

import json
from typing import Any

TEXT = "Ann Lee of Oslo"
EXPECTED = {"tokens": ["Ann", "Lee", "of", "Oslo"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]}


def label_studio(*results: list[dict[str, Any]], **annotation: Any) -> dict[str, Any]:
    annotations = [
        {"id": n, "result": result, "was_cancelled": False, **annotation} for n, result in enumerate(results)
    ]
    return {"id": 1, "data": {"ner": TEXT}, "annotations": annotations, "predictions": []}


def labelled(start: int, end: int, label: str) -> dict[str, Any]:
    value = {"start": start, "end": end, "text": TEXT[start:end], "labels": [label]}
    return {"value": value, "id": "x", "from_name": "label", "to_name": "text", "type": "labels"}


RESULT = [
    labelled(0, 7, "PER"),
    labelled(11, 15, "LOC"),
    {"type": "relation", "from_id": "x", "to_id": "y", "direction": "right"},
    {"type": "choices", "value": {"choices": ["good"]}, "from_name": "quality", "to_name": "text"},
]
EXPORTS: dict[str, dict[str, Any]] = {
    "Prodigy": {
        "text": TEXT,
        "tokens": [{"text": "Ann", "start": 0, "end": 3, "id": 0, "ws": True}],
        "spans": [
            {"start": 0, "end": 7, "token_start": 0, "token_end": 1, "label": "PER"},
            {"start": 11, "end": 15, "label": "LOC"},
        ],
        "answer": "accept",
        "_task_hash": 7,
    },
    "doccano": {"id": 1, "text": TEXT, "label": [[0, 7, "PER"], [11, 15, "LOC"]], "Comments": []},
    "doccano, older releases": {"id": 1, "text": TEXT, "labels": [[0, 7, "PER"], [11, 15, "LOC"]]},
    "doccano with relations": {
        "text": TEXT,
        "entities": [
            {"id": 1, "label": "PER", "start_offset": 0, "end_offset": 7},
            {"id": 2, "label": "LOC", "start_offset": 11, "end_offset": 15},
        ],
        "relations": [],
    },
    "Label Studio, JSON": label_studio(RESULT),
    "Label Studio, JSON with several fields": {**label_studio(RESULT), "data": {"text": TEXT, "source": "mail"}},
    "Label Studio, JSON-MIN": {
        "text": TEXT,
        "label": [
            {"start": 0, "end": 7, "text": "Ann Lee", "labels": ["PER"]},
            {"start": 11, "end": 15, "text": "Oslo", "labels": ["LOC"]},
        ],
        "annotator": 1,
    },
    "argilla": {
        "text": TEXT,
        "tokens": ["Ann", "Lee", "of", "Oslo"],
        "annotation": [{"label": "PER", "start": 0, "end": 7}, {"label": "LOC", "start": 11, "end": 15}],
        "prediction": None,
        "status": "Validated",
    },
    "argilla, tuples": {"text": TEXT, "annotation": [["PER", 0, 7], ["LOC", 11, 15]], "status": "Validated"},
    "brat-like entities": {"text": TEXT, "entities": [["T1", "PER", [[0, 7]]], ["T2", "LOC", [[11, 15]]]]},
    "presidio": {
        "text": TEXT,
        "spans": [
            {"entity_type": "PER", "entity_value": "Ann Lee", "start_position": 0, "end_position": 7},
            {"entity_type": "LOC", "entity_value": "Oslo", "start_position": 11, "end_position": 15},
        ],
    },
    "a list of spans as `datasets` writes it": {
        "text": TEXT,
        "entities": {"start": [0, 11], "end": [7, 15], "label": ["PER", "LOC"]},
    },
    "spans as JSON text": {"text": TEXT, "label": json.dumps([[0, 7, "PER"], [11, 15, "LOC"]])},
}
