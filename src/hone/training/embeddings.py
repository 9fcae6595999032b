"""A word embedding narrowed to the words that the rows have, while it is trained.

A word that is in no row gets no gradient, so AdamW, whose moments start at 0 and which does not decay embeddings here,
never moves it. Leaving such words out gives the same weights, and saves their gradient, moments and update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# From this share of words on, looking up their places costs about what leaving out the rest saves.
_WORTH = 0.8


class UsedRows(nn.Module):
    """The rows `used` (sorted ids) of an embedding, in its place. Other ids raise IndexError on a CPU."""

    place: torch.Tensor

    def __init__(self, full: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(full.weight.detach()[used].clone())
        place = torch.full((full.num_embeddings,), -1, dtype=torch.int64)
        place[used] = torch.arange(len(used))
        self.padding_idx = None if full.padding_idx is None else max(int(place[full.padding_idx]), 0)
        self.register_buffer("place", place, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The vectors of `ids`: [..., width]."""
        return functional.embedding(self.place[ids], self.weight, self.padding_idx)


def narrow_embedding(model: PreTrainedModel, used: np.ndarray, pad_id: int) -> Callable[[], None]:
    """Put UsedRows in place of the word embedding of `model` where that is exact and pays; gives the way back.

    It is exact for a plain embedding that moves and is tied to nothing else. The way back writes the trained
    rows into the embedding there was, and puts it back.
    """
    full = model.get_input_embeddings()
    if type(full) is not nn.Embedding or not full.weight.requires_grad or full.max_norm is not None:
        return lambda: None
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is full.weight]
    ids = torch.from_numpy(np.union1d(used, [pad_id]))
    if len(names) > 1 or len(ids) > _WORTH * full.num_embeddings:
        return lambda: None
    rows = UsedRows(full, ids)
    model.set_input_embeddings(rows)

    def widen() -> None:
        with torch.no_grad():
            full.weight[ids] = rows.weight.to(full.weight)
        model.set_input_embeddings(full)

    return widen
