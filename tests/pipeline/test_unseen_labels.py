"""Test rows with a label that no training row has, where validation only warns: they are scored, as wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from hone.errors import ValidationFailed
from hone.objectives.base import UNSEEN as NOT_IN_TRAINING
from hone.pipeline.stages import STAGES
from tests.in_process import Line
from tests.small_line import FILLING, WORDS

pytestmark = pytest.mark.slow

UNSEEN = "politics"


def write_rows(path: Path, label_column: str) -> None:
    """Rows of two topics with their splits, and two test rows of a topic that the training rows do not have."""
    draw = Random(3)
    topics = [
        (split, list(WORDS)[i % 2])
        for split, count in (("train", 120), ("dev", 20), ("test", 20))
        for i in range(count)
    ]
    rows: list[dict[str, Any]] = []
    for split, topic in [*topics, ("test", UNSEEN), ("test", UNSEEN)]:
        words = draw.choices(FILLING, k=9) + draw.choices(WORDS.get(topic, FILLING), k=3)
        rows.append(
            {"text": " ".join(words), label_column: [topic] if label_column == "labels" else topic, "split": split}
        )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize(
    ("kind", "label_column", "unseen_labels", "warning"),
    [
        ("text-classification", "label", "report", ""),
        (
            "text-classification",
            "label",
            "stop",
            "does not hold: test: expect_column_values_to_be_in_set(label): 2 of 22",
        ),
        (
            "multi-label-classification",
            "labels",
            "stop",
            "does not hold: test: 2 rows have labels that no training row has",
        ),
    ],
)
def test_rows_with_an_unseen_label_are_warned_about_and_count_as_wrong(
    line: Line,
    base_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    label_column: str,
    unseen_labels: str,
    warning: str,
) -> None:
    write_rows(tmp_path / "rows.jsonl", label_column)
    tree: Mapping[str, Any] = {
        "name": "small",
        "objective": {"kind": kind},
        "ingest": {"source": {"kind": "files", "paths": [str(tmp_path / "rows.jsonl")]}},
        "model": {"base": str(base_model)},
        "validation": {"on_failure": "warn", "unseen_labels": unseen_labels},
        "tokenization": {"max_length": 32},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 3.0e-3, "precision": "fp32"},
        "evaluation": {"resamples": 100},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    with caplog.at_level(logging.WARNING):
        made = line(tmp_path / "small.yaml")

    assert warning in caplog.text
    assert ("does not hold" in caplog.text) == bool(warning)
    unseen_warning = "test: 2 rows count as errors; no training row has their labels: politics (2)"
    assert unseen_warning in caplog.text
    assert STAGES["tokenize"].list_warnings(made["tokenize"]) == [unseen_warning]  # for a run that takes it as it is
    assert made["validate"].facts()["quarantined"] == 0
    warnings = STAGES["validate"].list_warnings(made["validate"])
    assert any("in_set(label)" in line for line in warnings) == ("in_set(label)" in warning)

    test = {row["id"]: row for row in pq.read_table(made["validate"].path / "test.parquet").to_pylist()}
    predictions = pq.read_table(made["evaluate"].path / "predictions.parquet").to_pylist()
    unseen = [row for row in predictions if UNSEEN in test[row["id"]][label_column]]
    assert len(predictions) == 22 and len(unseen) == 2
    assert all(row["error"] > 0 and row["reference"] == NOT_IN_TRAINING != row["prediction"] for row in unseen)
    metrics = json.loads((made["evaluate"].path / "metrics.json").read_text("utf8"))
    assert metrics["rows"] == 22
    right = sum(row["reference"] == row["prediction"] for row in predictions)
    name = "accuracy" if label_column == "label" else "subset_accuracy"
    assert metrics["systems"]["model"][name]["value"] == pytest.approx(right / 22)
    assert (
        "Test rows with labels that no training row has, which count as errors: 2 (politics)."
        in (made["register"].facts()["population"])
    )


@pytest.mark.parametrize("unseen_labels", ["report", "stop"])
def test_entities_of_an_unseen_type_are_warned_about_and_count_as_missed(
    line: Line, base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, unseen_labels: str
) -> None:
    draw = Random(3)
    rows = []
    for split, count in (("train", 120), ("dev", 20), ("test", 22)):
        for i in range(count):
            topic = UNSEEN if split == "test" and i >= 20 else list(WORDS)[i % 2]
            words = [
                *draw.choices(FILLING, k=6),
                draw.choice(WORDS.get(topic, ["election"])),
                *draw.choices(FILLING, k=3),
            ]
            rows.append({"tokens": words, "tags": ["O"] * 6 + [f"B-{topic}"] + ["O"] * 3, "split": split})
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tree: dict[str, Any] = {
        "name": "tagged",
        "objective": {"kind": "token-classification"},
        "ingest": {"source": {"kind": "files", "paths": [str(tmp_path / "rows.jsonl")]}},
        "model": {"base": str(base_model)},
        "validation": {"on_failure": "warn", "unseen_labels": unseen_labels},
        "tokenization": {"max_length": 32},
        "training": {"epochs": 8, "batch_size": 8, "learning_rate": 1.0e-2, "precision": "fp32"},
        "evaluation": {"resamples": 100},
    }
    (tmp_path / "tagged.yaml").write_text(yaml.safe_dump(tree))
    with caplog.at_level(logging.WARNING):
        made = line(tmp_path / "tagged.yaml")

    fault = "does not hold: test: 2 rows have labels that no training row has: politics (2)"
    assert (fault in caplog.text) == (unseen_labels == "stop")
    unseen_warning = "test: 2 rows count as errors; no training row has their labels: politics (2)"
    assert STAGES["tokenize"].list_warnings(made["tokenize"]) == [unseen_warning]
    metrics = json.loads((made["evaluate"].path / "metrics.json").read_text("utf8"))
    assert metrics["rows"] == 22
    assert 0.8 < metrics["systems"]["model"]["recall"]["value"] <= 20 / 22
    test = {row["id"]: row for row in pq.read_table(made["validate"].path / "test.parquet").to_pylist()}
    predictions = pq.read_table(made["evaluate"].path / "predictions.parquet").to_pylist()
    unseen = [row for row in predictions if UNSEEN in test[row["id"]]["tags"]]
    assert [row["reference"] for row in unseen] == ["election [politics]"] * 2
    assert all(row["error"] > 0 for row in unseen)
    assert (
        "Test rows with labels that no training row has, which count as errors: 2 (politics)."
        in made["register"].facts()["population"]
    )
    if unseen_labels == "stop":
        with pytest.raises(
            ValidationFailed, match=r"test: 2 rows have labels that no training row has: politics \(2\)"
        ):
            line(tmp_path / "tagged.yaml", "validation.on_failure=stop")
