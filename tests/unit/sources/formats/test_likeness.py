"""Rows of each objective, as data sets have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hone.sources.formats.likeness import guess_objective


@pytest.mark.parametrize(
    ("row", "objective"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"prompt": "a", "completion": "b", "label": True}, "preference"),
        ({"conversations": [{"from": "human", "value": "a"}], "system": ""}, "chat"),
        ({"messages": '[{"role": "user"}]'}, "chat"),
        ({"instruction": "a", "input": "", "output": "b"}, "chat"),
        ({"prompt": "a", "completion": "b"}, "chat"),
        ({"id": 1, "tokens": ["a", "b"], "ner_tags": [0, 1]}, "token-classification"),
        ({"text": "a b", "label": [[0, 1, "X"]]}, "token-classification"),
        ({"text": "a b", "labels": [[0, 1, "X"]]}, "token-classification"),
        ({"text": "a b", "labels": '[[0, 1, "X"]]'}, "token-classification"),
        ({"text": "a b", "spans": [{"start": 0, "end": 1, "label": "X"}], "answer": "accept"}, "token-classification"),
        (
            {"full_text": "a", "spans": [{"entity_type": "X", "start_position": 0, "end_position": 1}]},
            "token-classification",
        ),
        ({"text": "a", "entities": [{"start_offset": 0, "end_offset": 1, "label": "X"}]}, "token-classification"),
        ({"data": {"text": "a"}, "annotations": [{"result": []}]}, "token-classification"),
        ({"text": "a", "label": [{"start": 0, "end": 1, "labels": ["X"]}]}, "token-classification"),
        ({"id": 1, "question": "a", "context": "b", "answers": {}}, "question-answering"),
        ({"query": "a", "positive": "b", "negative": "c"}, "embedding"),
        ({"document": "a", "summary": "b"}, "seq2seq"),
        ({"text": "a", "labels": ["x"]}, "multi-label-classification"),
        ({"text": "a", "labels": "[]"}, "multi-label-classification"),
        ({"text": "a", "label": ["x"]}, "multi-label-classification"),
        ({"text": "a", "score": "0.75"}, "regression"),
        ({"text": "a", "label": 2.5}, "regression"),
        ({"text": "a", "label": 2}, "text-classification"),
        ({"text": "a", "label": 2.0}, "text-classification"),
        ({"text": "a", "label": "nan"}, "text-classification"),
        ({"text": "a", "category": "x"}, "text-classification"),
        ({"text": "a"}, ""),
        ({"text": None, "label": "x"}, ""),
        ({}, ""),
    ],
)
def test_the_columns_tell(row: dict[str, Any], objective: str) -> None:
    assert guess_objective(row) == objective


def test_real_data(shared: Path) -> None:
    data = shared / "datasets"
    with (data / "banking77/train.csv").open(newline="", encoding="utf8") as file:
        assert guess_objective(next(csv.DictReader(file))) == "text-classification"
    with (data / "scitldr_a/train.jsonl").open(encoding="utf8") as file:
        assert guess_objective(json.loads(next(file))) == "seq2seq"
    with (data / "rasbt_instruct/instruction-data.json").open(encoding="utf8") as file:
        assert guess_objective(json.load(file)[0]) == "chat"
    with (data / "llamafactory_demo/dpo_en_demo.json").open(encoding="utf8") as file:
        assert guess_objective(json.load(file)[0]) == "preference"
