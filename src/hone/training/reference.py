"""Predictions of the base model before training, for objectives whose loss compares the model with its base.

They are computed once, before the first step, and kept beside the tokens: no second model stays in memory, and an
interrupted training resumes with the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from hone.objectives.base import Objective
from hone.store.digests import file_digest
from hone.store.files import replace_file, write_synced
from hone.training.hardware import is_out_of_memory
from hone.training.launch import REFERENCE
from hone.training.tokens import TokenFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceModel:
    """The base model with its batch size and precision, which are those of training."""

    objective: Objective
    model: Any
    pad_id: int
    micro_batch_size: int
    precision: str


def add_reference_columns(tokens: Path, out: Path, model: ReferenceModel) -> TokenFile:
    """The rows of the file `tokens` with the columns of `Objective.reference_columns`, which are saved in `out`.

    Saved ones that are not what was written are predicted again, with a warning.
    """
    file = out / REFERENCE / tokens.name
    digest = file.with_name(f"{file.name}.sha256")
    rows = TokenFile(tokens)
    if not len(rows):
        return rows
    if file.is_file() and not _is_intact(file, digest):
        log.warning("%s is damaged: the base model's predictions are computed again", file)
        file.unlink()
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        _write_columns(model.objective.reference_columns(_predict_rows(rows, model)), file)
        write_synced(digest, file_digest(file))
    return TokenFile(tokens, file)


def _is_intact(file: Path, digest: Path) -> bool:
    """Whether the file has this digest; not without one: the process was killed before it wrote that."""
    return digest.is_file() and digest.read_bytes() == file_digest(file).encode()


def _predict_rows(rows: TokenFile, reference: ReferenceModel) -> dict[str, list[Any]]:
    """The model's predictions for all rows, in their order; batches are halved when memory runs out."""
    reference.model.eval()
    batch_size, order = reference.micro_batch_size, np.argsort(-rows.lengths, kind="stable")
    columns: dict[str, list[Any]] = {}
    start = 0
    while start < len(order):
        indices = order[start : start + batch_size]
        try:
            predictions = _predict_batch(rows.rows(indices), reference)
        except (MemoryError, RuntimeError) as fault:
            if len(indices) == 1 or not is_out_of_memory(fault):
                raise
            batch_size = (len(indices) + 1) // 2
            continue
        for name, values in predictions.items():
            column = columns.setdefault(name, [None] * len(order))
            for index, value in zip(indices.tolist(), values, strict=True):
                column[index] = value
        start += len(indices)
    return columns


def _predict_batch(rows: dict[str, list[Any]], reference: ReferenceModel) -> dict[str, Any]:
    device = reference.model.device
    batch = {name: tensor.to(device) for name, tensor in reference.objective.collate(rows, reference.pad_id).items()}
    bf16 = (
        torch.autocast(device.type, dtype=torch.bfloat16) if reference.precision == "bf16" else contextlib.nullcontext()
    )
    with torch.no_grad(), bf16:
        return reference.objective.predict_batch(reference.model, batch)


def _write_columns(columns: dict[str, Any], path: Path) -> None:
    """Write the columns to an Arrow file atomically: it appears only when all of it is on disk."""
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with replace_file(path) as work, pa.ipc.new_file(work, table.schema) as writer:
        writer.write_table(table)
