"""Whether a moving average of the weights helps, against the last and the best weights of the same trainings:

    HONE_SHARED=FOLDER python benchmarks/ema.py [MODEL]

MODEL is a folder with a small model, else stories260K of HONE_SHARED: a Llama of 260,000 weights. It is trained in full
on sms_spam and tweet_eval_emotion, with five seeds each, by the training's own steps; beside each training averages of
its weights are kept. Test accuracy and macro-F1, means over the seeds, with the standard deviation of the difference to
the best weights (of four evaluations on validation rows, Hone's default).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
import torch

from benchmarks.baselines import DATASETS, Rows
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification
from hone.store import layout
from hone.store.files import write_synced
from hone.training import checkpoints, loop
from hone.training.session import Session, build
from hone.training.tokens import TokenFile

SETS, SEEDS, EVALUATIONS = ("sms_spam", "tweet_eval_emotion"), 5, 4
DECAYS = (0.9, 0.99)  # above it the first steps decide in so short a training
MAX_LENGTH, VALID_ROWS = 48, 500
CHOOSING = "choosing"  # the validation rows alone
SETTINGS = {"epochs": 2, "batch_size": 32, "learning_rate": 2e-3, "device": "cpu", "precision": "fp32"}

Weights = dict[str, torch.Tensor]


def write_tokens(folder: Path, base: Path, train: Rows, test: Rows) -> None:
    """The rows encoded as the tokenize stage leaves them; the last training rows are the validation rows."""
    import json

    objective, tokenizer = TextClassification(), load_tokenizer(base)
    targets = {"labels": sorted({label for _, label in train})}
    write_synced(folder / layout.TARGETS, json.dumps(targets))
    # A training keeps the words of its training and validation rows alone: those of the test rows are among them.
    splits = {"train": train[:-VALID_ROWS], CHOOSING: train[-VALID_ROWS:], "test": test}
    splits["valid"] = [*splits[CHOOSING], *test]
    for split, rows in splits.items():
        texts, labels = zip(*rows, strict=True)
        table = pa.table({"id": [f"{split}:{row}" for row in range(len(rows))], "text": texts, "label": labels})
        encoded = objective.encode(table, tokenizer, MAX_LENGTH, targets)
        with pa.ipc.new_file(folder / layout.tokens_file(split), encoded.schema) as file:
            file.write_table(encoded)


def train(session: Session) -> dict[str, Weights]:
    """The weights by how they were chosen: the last, the best and the averages of each decay."""
    averages = {decay: copy(session.weights()) for decay in DECAYS}
    while session.state.step < session.total:
        loop.step(session)
        for decay, average in averages.items():
            # At first it follows the weights, as in TensorFlow's ExponentialMovingAverage.
            share = 1 - min(decay, (1 + session.state.step) / (10 + session.state.step))
            for name, tensor in session.weights().items():
                average[name].lerp_(tensor, share) if tensor.is_floating_point() else average[name].copy_(tensor)
        if session.state.step in session.evaluate_after:
            loop.evaluate(session)
    best = checkpoints.load_best_weights(session.checkpoints, session.state, session.device)
    chosen = {"best": copy(best), "last": copy(session.weights())}
    return chosen | {f"average, decay {decay:g}": average for decay, average in averages.items()}


def copy(weights: Mapping[str, torch.Tensor]) -> Weights:
    """The weights in memory of their own."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def judge(spec: dict[str, Any], tokens: Path) -> dict[str, tuple[float, float]]:
    """Test accuracy and macro-F1 in percent, by how the weights were chosen."""
    session = build(spec)
    session.valid = TokenFile(tokens / layout.tokens_file(CHOOSING))
    chosen = train(session)
    session.valid, figures = TokenFile(tokens / layout.tokens_file("test")), {}
    for name, weights in chosen.items():
        session.set_weights(weights)
        entry = loop.evaluate(session)
        figures[name] = 100 * entry["valid_accuracy"], 100 * entry["valid_macro_f1"]
    return figures


def print_set(name: str, results: list[dict[str, tuple[float, float]]]) -> None:
    """The lines of a data set."""
    for chosen in results[0]:
        cells = []
        for metric in (0, 1):
            values = [result[chosen][metric] for result in results]
            gains = [result[chosen][metric] - result["best"][metric] for result in results]
            spread = f" ({statistics.mean(gains):+.2f} ± {statistics.stdev(gains):.2f})" if chosen != "best" else ""
            cells.append(f"{statistics.mean(values):.2f}%{spread}")
        print(f"| {name} | {chosen} | {' | '.join(cells)} |", flush=True)


def main(names: list[str]) -> int:
    """Print the table."""
    shared = os.environ.get("HONE_SHARED")
    if not shared:
        print("skipped: HONE_SHARED names no folder of data sets")
        return 0
    base = Path(names[0]) if names else Path(shared).parent / "models/stories260K"
    print("| data | weights | accuracy (gain over best) | macro-F1 (gain over best) |")
    print("|---|---|---|---|")
    for name in SETS:
        began = time.perf_counter()
        results = []
        with tempfile.TemporaryDirectory() as place:
            write_tokens(Path(place), base, *DATASETS[name](Path(shared)))
            for seed in range(SEEDS):
                out = Path(place) / str(seed)
                out.mkdir()
                settings = SETTINGS | {"seed": seed, "evaluations": EVALUATIONS}
                spec = {"tokens": place, "out": str(out), "base": str(base), "settings": settings}
                parts = {"objective": ("text-classification", {}), "method": ("full", {})}
                results.append(judge(spec | parts, Path(place)))
        print_set(name, results)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
