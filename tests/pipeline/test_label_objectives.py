"""Several labels for a text, and a number for one: the whole line, and the registered models asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import f1_score, r2_score

from tests.in_process import Line
from tests.small_line import FILLING, WORDS

pytestmark = pytest.mark.slow


def ask(line: Line, texts: list[str]) -> list[dict[str, list[Any]]]:
    """The answers of the registered model, plain and with all scores."""
    model = line.served("small")
    answers = model.predict(texts), model.predict(texts, params={"all_scores": True})
    return [frame.to_dict("list") for frame in answers]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def configure(tmp_path: Path, base: Path, objective: Mapping[str, Any], columns: Mapping[str, str]) -> Path:
    tree = {
        "name": "small",
        "ingest": {"source": {"kind": "files", "paths": [str(tmp_path / "rows.jsonl")]}, "columns": dict(columns)},
        "curation": {"split": {"valid": 0.2, "test": 0.2}},
        "model": {"base": str(base)},
        "objective": dict(objective),
        "tokenization": {"max_length": 32},
        "training": {"epochs": 20, "batch_size": 16, "learning_rate": 3.0e-3, "precision": "fp32"},
        "evaluation": {"resamples": 100, "slices": ["length"]},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_several_labels(line: Line, base_model: Path, tmp_path: Path) -> None:
    draw = Random(3)
    rows = []
    for _ in range(360):
        topics = [topic for topic in WORDS if draw.random() < 0.45]
        words = draw.choices(FILLING, k=4) + [word for topic in topics for word in draw.choices(WORDS[topic], k=4)]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "about": topics})
    write(tmp_path / "rows.jsonl", rows)
    conf = configure(tmp_path, base_model, {"kind": "multi-label-classification"}, {"labels": "about"})
    made = line(conf)
    evaluated = made["evaluate"].path
    systems = json.loads((evaluated / "metrics.json").read_text())["systems"]
    assert set(systems) == {*("model", "majority_of_each_label", "most_frequent_set", "neighbours", "probe", "tf-idf")}
    assert systems["model"]["micro_f1"]["value"] > 0.7 > systems["most_frequent_set"]["micro_f1"]["value"]

    # What was served decides as what was tested: by the thresholds that the validation rows chose.
    targets = json.loads((evaluated / "targets.json").read_text())
    assert all(0 < threshold < 1 and threshold != 0.5 for threshold in targets["thresholds"])
    test = pq.read_table(made["validate"].path / "test.parquet")
    predictions = pq.read_table(evaluated / "predictions.parquet").to_pydict()
    plain, full = ask(line, test["text"].to_pylist())
    assert list(plain) == ["labels", "scores", "truncated"]
    assert [", ".join(sorted(labels)) or "(none)" for labels in plain["labels"]] == predictions["prediction"]
    for scores, tested in zip(full["all_scores"], predictions["scores"], strict=True):
        assert list(scores.values()) == pytest.approx(tested, abs=1e-5)

    # The figure is scikit-learn's of those very answers.
    right, said = (
        [[topic in labels for topic in targets["labels"]] for labels in sets]
        for sets in (map(json.loads, test["labels"].to_pylist()), plain["labels"])
    )
    assert systems["model"]["micro_f1"]["value"] == pytest.approx(f1_score(right, said, average="micro"))


def test_a_number(line: Line, base_model: Path, tmp_path: Path) -> None:
    draw = Random(4)
    rows = []
    for _ in range(360):
        hot = draw.randrange(6)
        words = (
            draw.choices(FILLING, k=8) + draw.choices(WORDS["sport"], k=hot) + draw.choices(WORDS["weather"], k=5 - hot)
        )
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "price": f"{1000 + 50 * hot + draw.random():.2f}"})
    write(tmp_path / "rows.jsonl", rows)
    conf = configure(tmp_path, base_model, {"kind": "regression"}, {"label": "price"})
    made = line(conf)
    evaluated = made["evaluate"].path
    systems = json.loads((evaluated / "metrics.json").read_text())["systems"]
    assert set(systems) == {"model", "mean", "neighbours"}
    assert systems["model"]["r2"]["value"] > 0.8
    assert systems["mean"]["r2"]["value"] == pytest.approx(0, abs=0.05)
    assert systems["mean"]["mae"]["value"] > 50 > systems["model"]["mae"]["value"]

    test = pq.read_table(made["validate"].path / "test.parquet")
    (plain, full) = ask(line, test["text"].to_pylist())
    assert plain == full
    assert list(plain) == ["value", "truncated"]
    right = [float(text) for text in test["label"].to_pylist()]
    assert systems["model"]["r2"]["value"] == pytest.approx(r2_score(right, plain["value"]), abs=1e-6)
