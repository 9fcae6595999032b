"""Tokens of a task that a tiny model learns in seconds, and what a training of it is told."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.tiny_bases import WORDS

COLOURS = ("red", "green", "blue")


def machine_precisions() -> list[str]:
    """The precisions that `auto` may choose on this machine's CPU."""
    from hone.training.hardware import cpu_has_bf16

    return ["fp32", "bf16"] if cpu_has_bf16() else ["fp32"]


def write_tokens(folder: Path, base: Path, *, train: int = 96, valid: int = 24, longest: int = 12) -> Path:
    """Sentences of random words with one colour, which is the label, as the tokenize stage leaves them."""
    import pyarrow as pa

    from hone.objectives.text_classification import TextClassification
    from hone.objectives.tokenizer import load_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    objective, tokenizer, chance = TextClassification(), load_tokenizer(base), random.Random(5)
    targets = {"labels": sorted(COLOURS)}
    (folder / "targets.json").write_text(json.dumps(targets), "utf8")
    others = [word for word in WORDS if word not in COLOURS]
    for split, rows in (("train", train), ("valid", valid), ("test", valid)):
        labels = [COLOURS[i % 3] for i in range(rows)]
        texts = [chance.choices(others, k=chance.randint(2, longest - 3)) for _ in labels]
        texts = [[*text, label] for text, label in zip(texts, labels, strict=True)]
        columns = {
            "id": pa.array([f"{split}:{i}" for i in range(rows)], pa.string()),
            "text": pa.array([" ".join(chance.sample(text, len(text))) for text in texts], pa.string()),
            "label": pa.array(labels, pa.string()),
        }
        encoded = objective.encode(pa.table(columns), tokenizer, longest, targets)
        with pa.ipc.new_file(folder / f"{split}.arrow", encoded.schema) as file:
            file.write_table(encoded, max_chunksize=40)
    return folder


def specification(
    tokens: Path, out: Path, base: Path, *, method: tuple[str, dict[str, Any]] = ("full", {}), **settings: Any
) -> dict[str, Any]:
    """What launch.py would write for the training process; in float32, for the same values on any processor."""
    out.mkdir(parents=True, exist_ok=True)
    return {
        "tokens": str(tokens),
        "out": str(out),
        "base": str(base),
        "objective": ("text-classification", {}),
        "method": method,
        "settings": {
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 5e-3,
            "device": "cpu",
            "precision": "fp32",
            **settings,
        },
    }


def without_dropout(base: Path) -> Path:
    """Turn off dropout in the base model `base`."""
    file = base / "config.json"
    config = json.loads(file.read_text("utf8"))
    changed = {name: 0.0 for name in config if name.endswith(("dropout", "dropout_prob"))}
    file.write_text(json.dumps(config | changed), "utf8")
    return base
