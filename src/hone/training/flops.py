"""The number of FLOPs of a model's training, for model FLOPs utilization (MFU).

PaLM (Chowdhery et al., arXiv 2204.02311, appendix B) counts, per token of a row of T tokens, 6 N for the N weights in
matrix products and 12 L H Q T for the attention of L layers with H heads of Q channels: one third for the forward pass,
one for the gradients of activations, one for the gradients of weights. Recomputation to save memory does not count.
With frozen weights, the gradients of weights count for trainable weights only, and the gradients of activations for
all weights from the lowest trainable one upwards. Attention has no weights of its own: only activation gradients.
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
    """FLOPs of training: `per_token` for each token, `per_pair` for each pair of tokens of one row (T² pairs)."""

    per_token: float
    per_pair: float

    def of(self, lengths: np.ndarray) -> float:
        """FLOPs of a forward and backward pass over rows of these lengths in tokens, without padding."""
        tokens = lengths.astype("float64")
        return float(self.per_token * tokens.sum() + self.per_pair * (tokens**2).sum())


def count_flops(model: Any) -> Flops:
    """FLOPs of training `model`, a transformers model or a PeftModel, with its currently trainable weights."""
    tables = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, UsedRows)) for p in m.parameters()}
    matrices = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in tables]
    lowest = next((i for i, p in enumerate(matrices) if p.requires_grad), len(matrices))
    if any(p.requires_grad for p in model.parameters() if id(p) in tables):
        lowest = 0
    total, above_lowest = count_weights(matrices), count_weights(matrices[lowest:])
    trainable = count_weights([p for p in matrices if p.requires_grad])
    config = model.config.get_text_config()
    width = config.num_hidden_layers * config.hidden_size
    # 2 FLOPs (multiply, add) per weight and token in each product. Attention's two backward thirds count in proportion
    # to the weights that gradients reach.
    return Flops(2.0 * (total + above_lowest + trainable), 4.0 * width * (1 + 2 * above_lowest / max(total, 1)))


def count_weights(parameters: Sequence[torch.nn.Parameter]) -> int:
    """The number of weights in the parameters; four-bit ones, packed two per byte, keep their shape in quant_state."""
    states = [getattr(parameter, "quant_state", None) for parameter in parameters]
    return sum((p if s is None else s).shape.numel() for p, s in zip(parameters, states, strict=True))
