"""Runs EleutherAI's lm-evaluation-harness on one model, in a process group of its own.

Nothing of the harness is imported here: it is started by its command line, and its files are read (`samples`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hone.errors import ConfigError, ModelError
from hone.evaluation.benchmarks.samples import read_results
from hone.models import own_code
from hone.store import layout
from hone.store.artifact import Product
from hone.training.processes import build_environment, end_process

WHERE = "evaluation.benchmarks"
OUTPUT, LOG = "harness", "harness.log"
INSTALL = "pip install 'hone[benchmarks]', or pip install 'lm-eval>=0.4.13'"
# Fixed, not `auto`: padding changes a score's last digits, and the base's results are compared with later ones.
BATCH_SIZE = 8
_LOG_LINES = 15


@dataclass(frozen=True)
class HarnessModel:
    """A model as the harness loads it: the directory of its weights and tokenizer, and an adapter on it if there is."""

    weights: Path
    adapter: Path | None = None
    tokenizer: Path | None = None

    def list_arguments(self) -> dict[str, Any]:
        """The arguments of the harness's model `hf`: float32, as Hone evaluates."""
        paths = {"pretrained": self.weights, "peft": self.adapter, "tokenizer": self.tokenizer}
        arguments: dict[str, Any] = {name: str(path.resolve()) for name, path in paths.items() if path}
        return arguments | {"dtype": "float32", "trust_remote_code": own_code.may_run(self.weights)}


def run_benchmarks(
    model: HarnessModel, out: Path, *, tasks: Sequence[str], include: Path | None, limit: int | None, device: str
) -> Product:
    """Run the `tasks` on the first `limit` documents of each (None: on all) and write their samples to `out`.

    `include` is a directory with further tasks; relative paths in its YAML files are relative to it. Writes
    samples.parquet (see `samples.read_results`) and benchmarks.json. Raises ConfigError if the harness is not
    installed or refuses the tasks, ModelError if it was killed.
    """
    require_harness()
    output = out / OUTPUT
    arguments = [
        *("run", "--model", "hf", "--model_args", json.dumps(model.list_arguments()), "--tasks", ",".join(tasks)),
        *("--batch_size", str(BATCH_SIZE), "--device", device, "--log_samples", "--output_path", str(output.resolve())),
        *(("--include_path", str(include.resolve())) if include else ()),
        *(("--limit", str(limit)) if limit else ()),
    ]
    _run_child(arguments, include or out, out / LOG)
    samples, summary = read_results(output)
    pq.write_table(samples, out / layout.SAMPLES, compression="zstd")
    (out / layout.BENCHMARKS).write_text(json.dumps(summary, indent=1), "utf8")
    facts = {"figures": {f"{figure['task']}/{figure['metric']}": figure["value"] for figure in summary["figures"]}}
    documents = sum(max(figure["rows"] for figure in figures) for figures in _group_by_task(summary["figures"]))
    return Product(documents, (layout.SAMPLES, layout.BENCHMARKS), facts, temporary=(OUTPUT, LOG))


def require_harness() -> None:
    """Raise ConfigError if lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "lm-evaluation-harness, which runs the tasks, is not installed", where=WHERE, fix=f"{INSTALL}."
        )


def _group_by_task(figures: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    names = dict.fromkeys(figure["task"] for figure in figures)
    return [[figure for figure in figures if figure["task"] == name] for name in names]


def _run_child(arguments: Sequence[str], folder: Path, log_file: Path) -> None:
    """Run the harness in `folder` to its end. Interrupted, or if this process dies, its whole group is ended."""
    command = [sys.executable, "-P", "-m", "hone.evaluation.benchmarks.child", *arguments]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            env=_build_environment(),
        )
    try:
        status = process.wait()
    finally:
        end_process(process)
    if status:
        raise _build_error(status, log_file)


def _build_environment() -> dict[str, str]:
    """Without network, unless the user's environment has these variables; no files are written beside the tasks."""
    offline = {name: os.environ.get(name, "1") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    return {**build_environment(), **offline, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}


def _build_error(status: int, log_file: Path) -> ConfigError | ModelError:
    """The error for a harness that failed, with the end of its log."""
    lines = log_file.read_text("utf8", errors="replace").splitlines()[-_LOG_LINES:]
    tail = "".join(f"\n    {line}" for line in lines)
    if status < 0:
        name = signal.Signals(-status).name
        fix = "Run again. If nobody killed it, the machine ran out of memory."
        return ModelError(f"lm-evaluation-harness was ended by {name}:{tail}", where=WHERE, fix=fix)
    fix = (
        "Correct the tasks, or put their data into `include`: nothing is downloaded unless HF_HUB_OFFLINE=0 and"
        " HF_DATASETS_OFFLINE=0 are set."
    )
    return ConfigError(f"lm-evaluation-harness failed (exit status {status}):{tail}", where=WHERE, fix=fix)
