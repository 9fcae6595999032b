"""What the base model says of the rows before it is trained, for objectives that learn by how far they leave it.

It is asked once, before the first step, and its words are kept beside the tokens: no second model stays in memory, and
an interrupted training goes on with the very same numbers.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from hone.objectives.base import Objective
from hone.training.checkpoints import sync_to_disk
from hone.training.hardware import out_of_memory
from hone.training.launch import REFERENCE
from hone.training.tokens import TokenFile


@dataclass(frozen=True)
class ReferenceModel:
    """How the base model is asked: at most so many rows at once, in the precision that training has."""

    objective: Objective
    model: Any
    pad_id: int
    micro_batch_size: int
    precision: str


def add_reference_columns(tokens: Path, out: Path, ask: ReferenceModel) -> TokenFile:
    """The rows of the file `tokens` with the columns of `Objective.reference_columns`, which are kept in `out`."""
    kept = out / REFERENCE / tokens.name
    rows = TokenFile(tokens)
    if not len(rows):
        return rows
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        _write(ask.objective.reference_columns(_said(rows, ask)), kept)
    return TokenFile(tokens, kept)


def _said(rows: TokenFile, ask: ReferenceModel) -> dict[str, list[Any]]:
    """What the model says of all rows, in their order; in smaller batches where memory does not suffice."""
    ask.model.eval()
    most, order = ask.micro_batch_size, np.argsort(-rows.lengths, kind="stable")
    found: dict[str, list[Any]] = {}
    start = 0
    while start < len(order):
        at = order[start : start + most]
        try:
            said = _batch(rows.rows(at), ask)
        except (MemoryError, RuntimeError) as fault:
            if len(at) == 1 or not out_of_memory(fault):
                raise
            most = (len(at) + 1) // 2
            continue
        for name, values in said.items():
            column = found.setdefault(name, [None] * len(order))
            for place, value in zip(at.tolist(), values, strict=True):
                column[place] = value
        start += len(at)
    return found


def _batch(rows: dict[str, list[Any]], ask: ReferenceModel) -> dict[str, Any]:
    device = ask.model.device
    batch = {name: tensor.to(device) for name, tensor in ask.objective.collate(rows, ask.pad_id).items()}
    bf16 = torch.autocast(device.type, dtype=torch.bfloat16) if ask.precision == "bf16" else contextlib.nullcontext()
    with torch.no_grad(), bf16:
        return ask.objective.predict_batch(ask.model, batch)


def _write(columns: dict[str, Any], path: Path) -> None:
    """Write the columns to an Arrow file that is there when all of it is on the disk, and not before."""
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    work = path.with_name(f".writing-{path.name}")
    with pa.ipc.new_file(work, table.schema) as writer:
        writer.write_table(table)
    sync_to_disk(work)
    work.rename(path)
    sync_to_disk(path.parent)
