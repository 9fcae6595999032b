"""A token embedding reduced, during training, to the tokens that occur in the rows.

A token that occurs in no row has a zero gradient, so AdamW never changes its vector: its moments start at 0, and
embeddings are not decayed here. Leaving such tokens out gives the same weights and saves their gradient, moments and
update.
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

# If more than this share of the tokens is used, the extra index lookup costs about what the reduction saves.
_MAX_USED_SHARE = 0.8


class UsedRows(nn.Module):
    """Replaces an embedding by its rows `used` (sorted token ids). Other ids raise IndexError on a CPU."""

    place: torch.Tensor  # [tokens]: the row of each token id, -1 if it is not used

    def __init__(self, full: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(full.weight.detach()[used].clone())
        place = torch.full((full.num_embeddings,), -1, dtype=torch.int64)
        place[used] = torch.arange(len(used))
        padding = -1 if full.padding_idx is None else int(place[full.padding_idx])
        self.padding_idx = None if padding < 0 else padding
        self.register_buffer("place", place, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The vectors of the token ids `ids` [...]: [..., width]."""
        return functional.embedding(self.place[ids], self.weight, self.padding_idx)


def narrow_embedding(model: PreTrainedModel, used: np.ndarray, pad_id: int) -> Callable[[], None]:
    """Replace the token embedding of `model` with UsedRows if that is exact and saves time; returns the undo function.

    It is exact for a plain, trainable embedding that is not tied to other weights. The undo function writes the trained
    rows into the original embedding and puts that back; if nothing was replaced, it does nothing.
    """
    full = model.get_input_embeddings()
    if type(full) is not nn.Embedding or not full.weight.requires_grad or full.max_norm is not None:
        return lambda: None
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is full.weight]
    ids = torch.from_numpy(np.union1d(used, [pad_id]))
    if len(names) > 1 or len(ids) > _MAX_USED_SHARE * full.num_embeddings:
        return lambda: None
    rows = UsedRows(full, ids)
    model.set_input_embeddings(rows)

    def widen() -> None:
        with torch.no_grad():
            full.weight[ids] = rows.weight.to(full.weight)
        model.set_input_embeddings(full)

    return widen
