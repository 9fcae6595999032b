"""Two versions of a tiny classifier, registered by the real line in one MLflow store, the second clearly better."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.config_file import parse
from hone.environment import Home
from hone.line import run, stages_of
from hone.stages import Job
from tests.small_line import topic_base, topic_rows

MODEL = "topics"
# Not trained to speak of, and trained well.
EPOCHS = {"1": 0.05, "2": 6.0}


@dataclass(frozen=True)
class Versions:
    """An MLflow store with the versions 1 (weak) and 2 (good) of `topics`; none is the champion."""

    uri: str
    root: Path


def config(root: Path, rows: Path, **changes: Any) -> dict[str, Any]:
    """The configuration of one version."""
    return {
        "name": MODEL,
        "ingest": {"source": {"kind": "files", "paths": [str(rows)]}},
        "curation": {
            "steps": [{"kind": "normalize"}, {"kind": "filters"}, {"kind": "duplicates"}],
            "split": {"test": 0.2},
        },
        "model": {"base": str(base(root))},
        "tokenization": {"max_length": 32},
        "evaluation": {"resamples": 200, "slices": ["length"]},
        "promotion": {"resamples": 500, "guards": {"latency": 20.0}},
    } | changes


def base(root: Path) -> Path:
    """A BERT of two layers with random weights, made once."""
    place = root / "base"
    if not place.is_dir():
        topic_base(place, positions=64)
    return place


def register(root: Path, tree: dict[str, Any]) -> str:
    """Run the line without Prefect; the number of the version that came of it."""
    parsed, home = parse(tree), Home(root / "hone")
    found: dict[str, Any] = {}
    for stage in stages_of(parsed):
        found[stage] = run(stage, Job(parsed, found, home))
    return str(found["register"].facts()["version"])


def train_versions(root: Path) -> Versions:
    """Train and register both."""
    rows = topic_rows(root / "rows.csv", 500, label="label")
    for number, epochs in EPOCHS.items():
        training = {
            "epochs": epochs,
            "batch_size": 16,
            "learning_rate": 5.0e-3,
            "precision": "fp32",
            "seed": int(number),
        }
        assert register(root, config(root, rows, training=training)) == number
    return Versions(f"sqlite:///{root}/hone/mlflow/mlflow.db", root)


def copy(versions: Versions, place: Path) -> Versions:
    """A store of one's own with the same versions; their files are shared."""
    (place / "mlflow").mkdir(parents=True)
    shutil.copyfile(versions.root / "hone" / "mlflow" / "mlflow.db", place / "mlflow" / "mlflow.db")
    return Versions(f"sqlite:///{place}/mlflow/mlflow.db", versions.root)
