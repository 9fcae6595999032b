"""How much arithmetic a model's training takes, for model FLOPs utilization.

PaLM (Chowdhery et al., arXiv 2204.02311, appendix B) counts, for each token of a row of T tokens, 6 N for the N weights
in matrix products and 12 L H Q T for the attention of L layers with H heads of Q channels: a third forward, a third
for the gradients of activations, a third for those of weights. Work that is only done to save memory does not count.
Where some weights stand still, the last third counts the moving ones alone, and the second the ones from the lowest
that moves upwards. Attention has no weights: its gradients are all of the second kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hone.training.embeddings import UsedRows

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Flops:
    """FLOPs of one optimizer step: `per_token` for each token, `per_pair` for each two tokens of a row that attend."""

    per_token: float
    per_pair: float

    def of(self, lengths: np.ndarray) -> float:
        """FLOPs of a forward and backward pass over rows of these lengths, padding not counted."""
        tokens = lengths.astype("float64")
        return float(self.per_token * tokens.sum() + self.per_pair * (tokens**2).sum())


def count_flops(model: Any) -> Flops:
    """The arithmetic of `model`, a transformers model or a PeftModel, with the weights that move now."""
    tables = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, UsedRows)) for p in m.parameters()}
    matrices = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in tables]
    lowest = next((i for i, p in enumerate(matrices) if p.requires_grad), len(matrices))
    if any(p.requires_grad for p in model.parameters() if id(p) in tables):
        lowest = 0
    every, passed = count_weights(matrices), count_weights(matrices[lowest:])
    moving = count_weights([p for p in matrices if p.requires_grad])
    config = model.config.get_text_config()
    width = config.num_hidden_layers * config.hidden_size
    return Flops(2.0 * (every + passed + moving), 4.0 * width * (1 + 2 * passed / max(every, 1)))


def count_weights(parameters: Sequence[torch.nn.Parameter]) -> int:
    """How many weights the parameters are; those of four bits lie two to a byte, and know their own shape."""
    states = [getattr(parameter, "quant_state", None) for parameter in parameters]
    return sum((p if s is None else s).shape.numel() for p, s in zip(parameters, states, strict=True))
