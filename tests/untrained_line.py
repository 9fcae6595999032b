"""A tiny model, trained by nobody, in artifacts as the line makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hone.models.locate import BaseModel
from hone.store import layout
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.store.store import Store

LABELS = ["refund", "shipping", "technical"]
MAX_LENGTH = 12
WORDS = ["order", "late", "money", "back", "crash", "screen", "parcel", "please", "why", "app", "card", "lost"]
# 2 to 16 words: with [CLS] and [SEP] more than MAX_LENGTH for some of them.
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i * 7 % 15)) for i in range(30)]
CONFIG = yaml.safe_dump(
    {
        "name": "tiny",
        "method": {"kind": "full"},
        "training": {"epochs": 2.0, "learning_rate": 5e-4},
        "tokenization": {"max_length": MAX_LENGTH},
    }
)


def build_line(store: Store, base: BaseModel, method: Any) -> dict[str, Artifact]:
    """Every stage's artifact, committed through the store in the layout of the real stages."""
    line: dict[str, Artifact] = {}

    def add(stage: str, make: Callable[[Path], Product], config: Mapping[str, Any] = {}) -> None:
        recipe = Recipe(stage, dict(config), {}, {f"src/hone/{stage}.py": "0" * 64}, {"python": "3.11"})
        line[stage], _ = store.obtain(recipe, make, name="tiny", config=CONFIG)

    add("ingest", _ingest)
    add("curate", _curate)
    add("validate", _validate)
    add("tokenize", _tokenize, {"tokenization": {"max_length": MAX_LENGTH}})
    add("train", lambda out: _train(out, base, method), {"method": type(method).__name__})
    add("evaluate", lambda out: _evaluate(out, line["train"].path, base))
    return line


def _ingest(out: Path) -> Product:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [i % len(TEXTS) for i in range(31)]  # the last repeats the first
    columns = {
        "id": [f"mail.csv:{i}" for i in range(31)],
        "text": [TEXTS[i] for i in rows],
        "label": [LABELS[i % 3] for i in rows],
    }
    pq.write_table(pa.table(columns), out / "rows.parquet")
    facts = {"read": 32, "rows": 31, "refused": 1, "reasons": {"ragged": 1}, "sources": {"mail.csv": 31}}
    return Product(31, ("rows.parquet",), facts)


def _splits() -> dict[str, list[int]]:
    return {"train": list(range(18)), "valid": list(range(18, 22)), "test": list(range(22, 30))}


def _curate(out: Path) -> Product:
    (out / "train.parquet").write_bytes(b"train")
    classes = {split: {LABELS[i % 3]: rows.count(i) for i in rows} for split, rows in _splits().items()}
    step = {"step": "duplicates", "before": 31, "after": 30, "dropped": {"near-duplicate | copy": 1}, "notes": {}}
    return Product(30, ("train.parquet",), {"funnel": [step | {"examples": []}], "splits": {}, "classes": classes})


def _validate(out: Path) -> Product:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, rows in _splits().items():
        columns = {
            "id": [f"mail.csv:{i}" for i in rows],
            "text": [TEXTS[i] for i in rows],
            "label": [LABELS[i % 3] for i in rows],
        }
        pq.write_table(pa.table(columns), out / f"{split}.parquet")
    (out / layout.DATA_DOCS).write_text("<html>Data Docs</html>")
    return Product(30, ("*.parquet",), {"success": True, "expectations": [], "quarantined": 0, "data_docs": ""})


def _tokenize(out: Path) -> Product:
    (out / "test.arrow").write_bytes(b"tokens")
    (out / "targets.json").write_text(json.dumps({"labels": LABELS}), "utf8")
    splits = {split: {"rows": len(rows), "tokens": 99, "truncated_rows": 0} for split, rows in _splits().items()}
    return Product(30, ("*.arrow", "targets.json"), {"splits": splits, "rows_per_second": 1.0})


def _train(out: Path, base: BaseModel, method: Any) -> Product:
    import torch

    from hone.objectives.shared.tokenizer import load_tokenizer
    from hone.objectives.text_classification import TextClassification

    torch.manual_seed(2)
    model = method.prepare(TextClassification().load_model(base.path, {"labels": LABELS}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))
    if method.adapter:
        model.save_pretrained(out / "adapter")
    method.merge(model).save_pretrained(out / "model")
    load_tokenizer(base.path).save_pretrained(out / "model")
    lines = [{"step": i, "epoch": i / 3, "loss": 1 / i, "learning_rate": 0.1, "grad_norm": 1.0} for i in range(1, 7)]
    lines += [{"step": i, "valid_loss": 1.5 / i, "valid_accuracy": i / 10} for i in (3, 6)]
    (out / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    facts = {"steps": 6, "epochs": 2.0, "rows": 18, "seconds": 1.5, "device": "cpu", "precision": "fp32"}
    facts |= {"parameters": 1000, "trainable": 1000, "best_step": 6}
    return Product(18, ("model/*", "adapter/*"), facts)


def _evaluate(out: Path, trained: Path, base: BaseModel) -> Product:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = _splits()["test"]
    scores = scores_of(trained / "model", base.path, [TEXTS[i] for i in rows])
    predicted = scores.argmax(1)
    table = {
        "id": [f"mail.csv:{i}" for i in rows],
        "reference": [LABELS[i % 3] for i in rows],
        "prediction": [LABELS[i] for i in predicted],
        "error": np.where(predicted == np.array([i % 3 for i in rows]), 0.0, scores.max(1)),
        "confidence": scores.max(1),
        "scores": scores.tolist(),
    }
    pq.write_table(pa.table(table), out / "predictions.parquet")
    accuracy = float(np.mean(predicted == np.array([i % 3 for i in rows])))
    figure = {"value": accuracy, "low": 0.1, "high": 0.9}
    slices = [{"name": f"{i} to {i + 1}", "rows": 4, "model": {"accuracy": figure}} for i in range(2)]
    slices.append({"name": "long", "rows": 5, "model": {"accuracy": {"value": 0.0625, "low": 0.0, "high": 0.5}}})
    metrics = {
        "main_metric": "accuracy",
        "measures": {
            "accuracy": {"title": "Accuracy", "lower": False, "share": True},
            "ece": {"title": "Calibration error", "lower": True, "share": True},
        },
        "rows": len(rows),
        "confidence": 0.95,
        "systems": {"model": {"accuracy": figure, "ece": figure}, "majority": {"accuracy": figure}},
        "comparisons": {"majority": {"metric": "accuracy", "difference": 0.2, "low": 0.1, "high": 0.3, "p": 0.01}},
        "per_class": {n: {"precision": figure, "recall": figure, "f1": figure, "support": 3} for n in LABELS},
        "calibration": {"ece": 0.07, "bins": []},
        "slices": {"length": slices},
    }
    (out / "metrics.json").write_text(json.dumps(metrics), "utf8")
    (out / "targets.json").write_text(json.dumps({"labels": LABELS}), "utf8")
    return Product(
        len(rows), ("metrics.json", "predictions.parquet", "targets.json"), {"metrics": {"accuracy": accuracy}}
    )


def scores_of(model: Path, base: Path, texts: list[str]) -> Any:
    """Class probabilities as evaluation has them: the objective's own encode, collate and scores."""
    import pyarrow as pa
    import torch
    from transformers import AutoModelForSequenceClassification

    from hone.objectives.shared.tokenizer import load_tokenizer
    from hone.objectives.text_classification import TextClassification

    objective, tokenizer = TextClassification(), load_tokenizer(base)
    rows = pa.table({"id": [str(i) for i in range(len(texts))], "text": texts, "label": [LABELS[0]] * len(texts)})
    tokens = objective.encode(rows, tokenizer, MAX_LENGTH, {"labels": LABELS})
    batch = objective.collate(tokens.to_pydict(), tokenizer.pad_token_id)
    with torch.inference_mode():
        return objective.predict_batch(AutoModelForSequenceClassification.from_pretrained(model).eval(), batch)[
            "scores"
        ]
