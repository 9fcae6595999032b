"""Near-duplicate clusters of many texts: ours, datasketch's and rensa's, shingling included, in one run.

    python benchmarks/near_duplicates.py [--rows 100000] [--threshold 0.8] [--num-perm 128]

The texts are passages of real data sets where the environment variable HONE_SHARED names a folder of them, else of the
docstrings of the installed packages; some are perturbed copies of others. All three get the same word 3-grams, the
same threshold and as many permutations. Recall is of the pairs planted, as far as their Jaccard is at the threshold
or above, and of those in plagiarism_near_dup. Memory is measured in a process of its own for each size.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from installed_docs.source import InstalledDocs

from hone.curation.dedup.folding import fold_to_tokens
from hone.curation.dedup.near import NUM_PERM, SHINGLE, clusters
from hone.curation.parallel import cores

SHARED = Path(os.environ.get("HONE_SHARED", ""))
PLANTED = 0.2  # of the rows are copies with a word or a few changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--num-perm", type=int, default=NUM_PERM)
    parser.add_argument("--memory-of", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of >= 0:
        print(peak_bytes(options.memory_of, options.threshold, options.num_perm))
        return
    texts, planted = corpus(options.rows)
    words = sum(len(text.split()) for text in texts) / len(texts)
    print(
        f"{len(texts)} rows of {words:.0f} words in the mean, {len(planted)} planted copies, "
        f"threshold {options.threshold}, {options.num_perm} permutations, {cores()} cores"
    )
    ours = timed("hone", lambda: clusters(texts, options.threshold, num_perm=options.num_perm), texts, planted, options)
    theirs = timed("datasketch", lambda: datasketch(texts, options), texts, planted, options)
    other = timed("rensa", lambda: rensa(texts, options), texts, planted, options)
    print(f"ratio: {theirs / ours:.1f} times datasketch, {other / ours:.1f} times rensa")
    if (SHARED / "datasets" / "plagiarism_near_dup").is_dir():
        print(f"plagiarism_near_dup: recall {planted_articles(options):.2f}")
    print_memory(options)


def timed(
    name: str,
    find: Callable[[], Sequence[int]],
    texts: Sequence[str],
    planted: list[tuple[int, int]],
    options: argparse.Namespace,
) -> float:
    """Seconds that `find` took; prints them with the rows per second and the recall."""
    start, start_cpu = time.perf_counter(), time.process_time()
    found = find()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    true = [(i, j) for i, j in planted if jaccard(texts[i], texts[j]) >= options.threshold]
    recall = sum(found[i] == found[j] for i, j in true) / max(1, len(true))
    dropped = sum(leader != i for i, leader in enumerate(found))
    print(
        f"{name:10} {importlib.metadata.version(name):8} {seconds:7.1f} s (cpu {cpu:.1f} s) "
        f"{len(texts) / seconds:9.0f} rows/s, recall {recall:.4f} of {len(true)} pairs, {dropped} rows to drop"
    )
    return seconds


def corpus(rows: int) -> tuple[list[str], list[tuple[int, int]]]:
    """That many texts, shuffled, and the pairs of them of which one is a perturbed copy of the other."""
    rng = random.Random(11)
    passages = sorted({text for text in real_passages() if len(text.split()) >= 8})
    while len(passages) < rows:  # sentences of two passages make another
        one, other = rng.choice(passages).split(), rng.choice(passages).split()
        passages.append(" ".join(one[: len(one) // 2] + other[len(other) // 2 :]))
    texts = rng.sample(passages, rows)
    vocabulary = sorted({word for text in texts[:1000] for word in text.split()})
    planted = []
    for copy in range(int(rows * PLANTED)):
        original = rows - 1 - copy
        words = texts[original].split()
        for change in range(1 + len(words) // 40):
            words[rng.randrange(len(words)) if change else -1] = rng.choice(vocabulary)
        texts[copy] = " ".join(words)
        planted.append((copy, original))
    order = rng.sample(range(rows), rows)
    place = {old: new for new, old in enumerate(order)}
    return [texts[old] for old in order], [(place[i], place[j]) for i, j in planted]


def real_passages() -> list[str]:
    """Texts of banking77, sms_spam and others where HONE_SHARED has them, else of installed docstrings."""
    folder = SHARED / "datasets"
    if not (folder / "banking77").is_dir():
        return [row.values["text"] for row in InstalledDocs().rows() if not row.refused]
    texts = []
    for split in ("train", "test"):
        with (folder / "banking77" / f"{split}.csv").open(encoding="utf8") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    for name in (
        "sms_spam/sms.tsv",
        "tweet_eval_emotion/train_text.txt",
        "scitldr_a/train.jsonl",
        "tinyshakespeare/input.txt",
    ):
        text = (folder / name).read_text("utf8")
        texts += [part for line in text.split("\n\n" if name.startswith("tiny") else "\n") for part in line.split(". ")]
    return texts


def word_runs(text: str) -> set[bytes]:
    """The word 3-grams of a text, folded as ours are."""
    words = fold_to_tokens(text).split(" ")
    return {" ".join(words[i : i + SHINGLE]).encode() for i in range(max(1, len(words) - SHINGLE + 1))}


def jaccard(one: str, other: str) -> float:
    a, b = word_runs(one), word_runs(other)
    return len(a & b) / len(a | b)


def datasketch(texts: Sequence[str], options: argparse.Namespace) -> list[int]:
    """As its documentation shows: sketches of the sets in bulk, and a query for each before it goes into the index."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=options.threshold, num_perm=options.num_perm)
    first = list(range(len(texts)))
    for row, sketch in enumerate(MinHash.generator(map(word_runs, texts), num_perm=options.num_perm)):
        alike = [int(key) for key in index.query(sketch)]
        if alike:
            first[row] = first[min(alike)]
        index.insert(str(row), sketch, check_duplication=False)
    return first


def rensa(texts: Sequence[str], options: argparse.Namespace) -> list[int]:
    """As its documentation shows: sketches of the whole batch, an LSH index, a query for each row."""
    from rensa import RMinHash, RMinHashLSH

    sketches = RMinHash.from_token_sets([list(word_runs(text)) for text in texts], num_perm=options.num_perm, seed=42)
    index = RMinHashLSH(threshold=options.threshold, num_perm=options.num_perm, num_bands=options.num_perm // 4)
    index.insert_many(sketches)
    first = list(range(len(texts)))
    for row, alike in enumerate(index.query_all(sketches)):
        near = [key for key in alike if key < row and sketches[key].jaccard(sketches[row]) >= options.threshold]
        if near:
            first[row] = first[min(near)]
    return first


def planted_articles(options: argparse.Namespace) -> float:
    """The share of the true pairs of plagiarism_near_dup that are found."""
    folder = SHARED / "datasets" / "plagiarism_near_dup"
    lines = (folder / "articles_100.train").read_text("utf8").splitlines()
    names, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    found = dict(zip(names, clusters(texts, options.threshold, num_perm=options.num_perm), strict=True))
    pairs = [line.split() for line in (folder / "articles_100.truth").read_text("utf8").splitlines()]
    return sum(found[one] == found[other] for one, other in pairs) / len(pairs)


def print_memory(options: argparse.Namespace) -> None:
    """Prints what finding the clusters of a quarter, half and all of the rows took in memory, and the growth."""
    if sys.platform != "linux":
        print("memory: measured on Linux alone, which can set a process's peak back")
        return
    grown = {}
    for rows in (options.rows // 4, options.rows // 2, options.rows):
        command = [sys.executable, __file__, "--memory-of", str(rows), "--threshold", str(options.threshold)]
        command += ["--num-perm", str(options.num_perm)]
        grown[rows] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"memory: {grown[rows] / 1e6:.0f} MB beyond the texts for {rows} rows")
    quarter, half, whole = grown
    print(
        f"memory grows by {(grown[whole] - grown[half]) / (whole - half) / 1e3:.2f} GB per million rows "
        f"in the second half, by {(grown[half] - grown[quarter]) / (half - quarter) / 1e3:.2f} GB in the second quarter"
    )


def peak_bytes(rows: int, threshold: float, num_perm: int) -> int:
    """How far the resident memory of this process rose while it found clusters (Linux: VmHWM, set back before)."""
    texts, _ = corpus(rows)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    clusters(texts, threshold, num_perm=num_perm)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
