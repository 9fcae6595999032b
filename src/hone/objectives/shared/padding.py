"""Rows of unlike length as one tensor, padded on the right, or where a model needs it on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from hone.objectives.base import Batch


def pad_rows(rows: Sequence[Any], value: float) -> Tensor:
    """The rows one below the other, [rows, longest], int64, or float32 where `value` is a float."""
    import numpy as np
    import torch

    kind = np.float32 if isinstance(value, float) else np.int64
    lengths = np.array([len(row) for row in rows])
    inside = np.arange(lengths.max()) < lengths[:, None]
    table = np.full(inside.shape, value, kind)
    table[inside] = np.concatenate([np.asarray(row, kind) for row in rows])
    return torch.from_numpy(table)


def attention_mask(rows: Sequence[Any]) -> Tensor:
    """1 where `padded` has a token of a row, 0 where it has padding; int64 [rows, longest]."""
    import torch

    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()


def pad_on_left(batch: Batch) -> Batch:
    """The batch with its `input_ids` and `attention_mask` padded on the left: each row ends at the last position."""
    import torch

    mask = batch["attention_mask"]
    width = mask.shape[1]
    at = (torch.arange(width, device=mask.device) + mask.sum(1, keepdim=True)) % width
    return dict(batch) | {name: batch[name].gather(1, at) for name in ("input_ids", "attention_mask")}
