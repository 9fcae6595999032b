"""A data set with splits and flaws of its own through the whole line: its test rows are scored as they came."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.in_process import Line
from tests.small_line import FILLING, WORDS

pytestmark = pytest.mark.slow

# Each is short, repeated, in conflict, or not as plain as the training rows; one has a label that these do not have.
ODD = [
    {"text": "rain", "label": "weather"},
    {"text": "<p>the  team &amp; the coach</p>", "label": "sport"},
    {"text": "goal [SEP] race \u200b ball", "label": "sport"},
    {"text": "we saw the storm again", "label": "weather"},
    {"text": "we saw the storm again", "label": "weather"},
    {"text": "some other news of the town", "label": "politics"},
]


def rows_of(draw: Random, count: int, split: str) -> list[dict[str, str]]:
    rows = []
    for i in range(count):
        topic = list(WORDS)[i % 2]
        words = draw.choices(FILLING, k=9) + draw.choices(WORDS[topic], k=3)
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": topic, "split": split})
    return rows


def write_configuration(folder: Path, base: Path, rows: list[dict[str, str]], epochs: int, **curation: Any) -> Path:
    """The file of a configuration of the line on these rows."""
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tree = {
        "name": "small",
        "objective": {"kind": "text-classification"},
        "ingest": {"source": {"kind": "files", "paths": [str(folder / "rows.jsonl")]}},
        "curation": {
            "steps": [{"kind": "normalize"}, {"kind": "filters", "min_chars": 8}, {"kind": "duplicates"}],
            **curation,
        },
        "model": {"base": str(base)},
        "tokenization": {"max_length": 32},
        "training": {"epochs": epochs, "batch_size": 16, "learning_rate": 3.0e-3, "precision": "fp32"},
        "evaluation": {"resamples": 100, "slices": ["length"]},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_report_says_that_the_steps_dropped_given_test_rows(line: Line, base_model: Path, tmp_path: Path) -> None:
    draw = Random(3)
    odd = [row | {"split": "test"} for row in ODD[:5]]
    rows = rows_of(draw, 100, "train") + rows_of(draw, 20, "dev") + rows_of(draw, 30, "test") + odd
    made = line(write_configuration(tmp_path, base_model, rows, 1, held_out="curate"))

    # One is too short, one repeats another; the others are scored.
    sentence = "33 of 35 given test rows were used."
    assert json.loads((made["evaluate"].path / "metrics.json").read_text("utf8"))["rows"] == 33
    assert made["register"].facts()["population"][0] == sentence
    report = (made["register"].path / "report.html").read_text("utf8")
    assert f'<p class="hint">{sentence}</p>' in report[: report.index('<section id="rows">')]  # beside the headline


def test_given_test_rows_are_scored_as_they_came(
    line: Line, base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = Random(3)
    odd = [row | {"split": "test"} for row in ODD]
    rows = rows_of(draw, 200, "train") + rows_of(draw, 20, "dev") + rows_of(draw, 30, "test") + odd
    conf = write_configuration(tmp_path, base_model, rows, 10)
    with caplog.at_level(logging.WARNING):
        made = line(conf)

    metrics = json.loads((made["evaluate"].path / "metrics.json").read_text("utf8"))
    assert metrics["rows"] == 36
    slices = {part["name"]: part["rows"] for part in metrics["slices"]["curation"]}
    assert slices == {"rows that curation would drop": 2, "other rows": 34}
    assert metrics["per_class"]["(not in training)"]["support"] == 1
    assert metrics["confusion"]["labels"] == ["sport", "weather", "(not in training)"]
    assert metrics["systems"]["model"]["accuracy"]["value"] <= 35 / 36
    assert "test: 1 rows count as errors; no training row has their labels: politics (1)" in caplog.text

    report = (made["register"].path / "report.html").read_text("utf8")
    sentences = made["register"].facts()["population"]
    *sentences_on_test, sentence_on_valid = sentences
    assert sentences_on_test == [
        "Test rows that would have been dropped as training rows: 2 (see the slice curation).",
        "Test rows with labels that no training row has, which count as errors: 1 (politics).",
    ]
    assert re.match(r"On the \d+ validation rows accuracy was \d", sentence_on_valid)
    assert all(sentence in report for sentence in sentences)
    assert "small version 1, alias candidate" in report and "small has no champion yet" in report

    # What a caller sends is what was scored.
    predictions = pq.read_table(made["evaluate"].path / "predictions.parquet").to_pylist()
    scored = {row["id"]: row for row in pq.read_table(made["validate"].path / "test.parquet").to_pylist()}
    texts = [scored[row["id"]]["text"] for row in predictions]
    assert sorted(texts) == sorted(row["text"] for row in rows if row["split"] == "test")
    answers = line.served("small").predict(texts)
    assert answers["label"].tolist() == [row["prediction"] for row in predictions]
    assert np.allclose(answers["score"], [row["confidence"] for row in predictions], atol=1e-5)
