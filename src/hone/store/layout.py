"""The file names in the artifacts of the stages, where more than one module uses them."""

from __future__ import annotations

# Of every artifact.
MANIFEST = "manifest.json"
CONFIG = "config.yaml"
# Of a store: the output of running stages, locks, and what is moved there in one step before it is deleted.
WORK = "work"
LOCKS = "locks"
TRASH = ".trash"
# ingest
ROWS = "rows.parquet"
REFUSED = "refused.parquet"
# validate
DATA_DOCS = "data_docs.html"
# tokenize
TARGETS = "targets.json"
# train
HISTORY = "history.jsonl"
ACCOUNT = "training.json"  # written last, when the model is on disk
# rivals
ANSWERS = "answers.parquet"
RIVALS = "rivals.json"
# benchmarks, benchmarks-base
BENCHMARKS = "benchmarks.json"
SAMPLES = "samples.parquet"
# judge
JUDGE = "judge.json"
VERDICTS = "verdicts.parquet"
# evaluate
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
SPEED = "speed.json"
# sweep
SWEEP = "sweep.json"
# register
SPLITS = "splits"  # the folder of the splits in MLflow's run
REPORT = "report.html"


def rows_file(split: str) -> str:
    """The rows of a split, in the artifacts of curate and validate."""
    return f"{split}.parquet"


def tokens_file(split: str) -> str:
    """The tokens of a split, in the artifact of tokenize."""
    return f"{split}.arrow"
