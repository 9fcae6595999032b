"""Rows of different lengths as one tensor, padded on the right, or on the left for models that need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from hone.objectives.base import Batch


def pad_rows(rows: Sequence[Any], value: float) -> Tensor:
    """The rows padded on the right with `value`, [rows, longest]; int64, or float32 if `value` is a float."""
    import numpy as np
    import torch

    dtype = np.float32 if isinstance(value, float) else np.int64
    lengths = np.array([len(row) for row in rows])
    is_token = np.arange(lengths.max()) < lengths[:, None]
    table = np.full(is_token.shape, value, dtype)
    table[is_token] = np.concatenate([np.asarray(row, dtype) for row in rows])
    return torch.from_numpy(table)


def attention_mask(rows: Sequence[Any]) -> Tensor:
    """1 where `pad_rows` puts a token of a row, 0 where it puts padding; int64 [rows, longest]."""
    import torch

    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()


def pad_prompts(prompts: Sequence[Any], pad_id: int) -> Batch:
    """`input_ids` and `attention_mask` of prompts, padded on the left: generation continues at the end of each row.

    An empty prompt is one padding token, which the mask leaves out.
    """
    import torch

    rows = [prompt if len(prompt) else [pad_id] for prompt in prompts]
    mask = attention_mask(rows) * torch.tensor([[int(len(prompt) > 0)] for prompt in prompts])
    return pad_on_left({"input_ids": pad_rows(rows, pad_id), "attention_mask": mask})


def pad_on_left(batch: Batch) -> Batch:
    """The batch with `input_ids` and `attention_mask` padded on the left: each row ends at the last position."""
    import torch

    mask = batch["attention_mask"]
    width = mask.shape[1]
    positions = (torch.arange(width, device=mask.device) + mask.sum(1, keepdim=True)) % width
    return dict(batch) | {name: batch[name].gather(1, positions) for name in ("input_ids", "attention_mask")}
