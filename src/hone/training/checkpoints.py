"""Checkpoints: what training needs to resume after a kill exactly as if it had not been interrupted.

checkpoints/step-00000120/   weights.safetensors   the trainable weights, and buffers
                             optimizer.safetensors AdamW's moments
                             random.safetensors    states of torch's, CUDA's, numpy's and Python's generators
                             state.json            the progress of training
                             manifest.json         digests of the other files; written last: without it, incomplete
checkpoints/best-00000100.safetensors              the best weights so far, if early stopping needs them

A checkpoint is written to a temporary directory and renamed when all of it is on disk.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hone.errors import CheckpointError
from hone.store.digests import file_digest
from hone.store.files import replace_file, sync, write_synced

log = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
KEPT = 2  # number of checkpoints: if the last one is damaged, the one before is used
_PARTS = ("weights", "optimizer", "random")
_FILES = (*(f"{part}.safetensors" for part in _PARTS), "state.json")
_MANIFEST = "manifest.json"


@dataclass
class State:
    """The progress of training after `step` optimizer steps.

    `seconds` and `step_seconds` are totals over all attempts; `step_seconds` is the time of optimizer steps alone.
    `history` is the length of the history file in bytes. `best` is the value of the metric that decides
    (`hone.training.selection`) at `best_step`, None before it was measured. `stale` counts evaluations since then.
    `valid` and `best_valid` are the metrics of the last evaluation and of the best one.
    """

    step: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    rows: int = 0
    tokens: int = 0
    flops: float = 0.0
    history: int = 0
    valid_loss: float | None = None
    best: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    stale: int = 0
    best_digest: str = ""
    valid: dict[str, float] = field(default_factory=dict)
    best_valid: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to resume."""

    state: State
    weights: Tensors
    optimizer: Tensors
    random: Tensors


def save_checkpoint(home: Path, checkpoint: Checkpoint) -> None:
    """Commit a checkpoint under `home`, and delete those before the last two."""
    name = f"step-{checkpoint.state.step:08d}"
    work = home / f".writing-{name}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for part in _PARTS:
        save_file(getattr(checkpoint, part), work / f"{part}.safetensors")
    write_synced(work / "state.json", json.dumps(vars(checkpoint.state)))
    digests = {}
    for file in sorted(work.iterdir()):
        sync(file)
        digests[file.name] = file_digest(file)
    write_synced(work / _MANIFEST, json.dumps(digests, indent=1))
    shutil.rmtree(home / name, ignore_errors=True)
    work.rename(home / name)
    sync(home)
    _prune(home)


def load_latest_checkpoint(home: Path, device: torch.device) -> Checkpoint | None:
    """The newest intact checkpoint under `home`, its tensors on `device`; None if there is no checkpoint.

    Incomplete checkpoints are skipped. Damaged ones are skipped with a warning, and deleted if an older one is intact.
    Raises CheckpointError if only damaged ones are left: restarting silently could cost days.
    """
    damaged: dict[Path, str] = {}
    for directory in reversed(_list_committed(home)):
        fault = _find_damage(directory)
        if not fault:
            for newer in damaged:
                shutil.rmtree(newer)
            return _load_checkpoint(directory, device)
        damaged[directory] = fault
        log.warning("a damaged checkpoint is skipped: %s", fault)
    if damaged:
        raise CheckpointError(
            f"no checkpoint can be read: {'; '.join(damaged.values())}",
            where=str(home),
            fix="Put the files back, or delete this directory to train from the beginning.",
        )
    return None


def save_best_weights(home: Path, step: int, weights: Tensors) -> str:
    """Save the best weights so far; returns their digest."""
    home.mkdir(parents=True, exist_ok=True)
    file = _best_weights_file(home, step)
    with replace_file(file) as work:
        save_file(weights, work)
    return file_digest(file)


def load_best_weights(home: Path, state: State, device: torch.device) -> Tensors:
    """The weights of the best evaluation; raises CheckpointError if they are missing or damaged."""
    file = _best_weights_file(home, state.best_step)
    if not file.is_file() or file_digest(file) != state.best_digest:
        raise CheckpointError(
            f"the best weights, of step {state.best_step}, are missing or damaged",
            where=str(file),
            fix=f"Delete {home} to train from the beginning.",
        )
    return load_file(file, device=str(device))


def _list_committed(home: Path) -> list[Path]:
    """The checkpoints that were committed, oldest first."""
    return sorted(directory for directory in home.glob("step-*") if (directory / _MANIFEST).is_file())


def _find_damage(directory: Path) -> str:
    """What is wrong with a committed checkpoint (a file is missing or its bytes differ); '' if it is intact."""
    try:
        digests = dict(json.loads((directory / _MANIFEST).read_text("utf8")))
    except (ValueError, TypeError):
        return f"{directory / _MANIFEST} is not what was written"
    missing = [name for name in _FILES if name not in digests]
    if missing:
        return f"{directory / _MANIFEST} does not list {missing[0]}"
    for name, digest in digests.items():
        file = directory / name
        if not file.is_file():
            return f"{file} is missing"
        if file_digest(file) != digest:
            return f"{file} does not contain the bytes that were written"
    return ""


def _load_checkpoint(directory: Path, device: torch.device) -> Checkpoint:
    state = State(**json.loads((directory / "state.json").read_text("utf8")))
    parts = {part: load_file(directory / f"{part}.safetensors", device=str(device)) for part in _PARTS}
    return Checkpoint(state, **parts)


def _best_weights_file(home: Path, step: int) -> Path:
    return home / f"best-{step:08d}.safetensors"


def _prune(home: Path) -> None:
    """Delete all but the last KEPT checkpoints and the best weights that they refer to.

    A checkpoint whose state cannot be read is not counted, and deleted.
    """
    best_steps: dict[Path, int] = {}
    for directory in reversed(_list_committed(home)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if len(best_steps) < KEPT:
                best_steps[directory] = json.loads((directory / "state.json").read_text("utf8"))["best_step"]
    needed = {*best_steps, *(_best_weights_file(home, step) for step in best_steps.values())}
    for path in home.iterdir():
        if path in needed:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
