"""The number of FLOPs of a model's training, for model FLOPs utilization (MFU; Chowdhery et al., arXiv 2204.02311).

They are counted, not derived: torch's FlopCounterMode counts the matrix products of the forward and backward pass of a
few training rows, one at a time, so without padding. Whatever the architecture, the objective and the method, that
includes tied heads, both sides of an encoder-decoder and frozen weights' missing gradients. A row's FLOPs are then
a function of its numbers of tokens and targets. Recomputation to save memory does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from hone.objectives.base import Objective
    from hone.training.tokens import TokenFile

ROWS = 4
MAX_LENGTH = 512  # tokens of a counted row, if there are such rows: attention's memory grows with the square


@dataclass(frozen=True)
class Flops:
    """FLOPs of training: for each token, each pair of tokens of one row (T² pairs), and each target of the loss."""

    per_token: float
    per_pair: float
    per_target: float

    def of(self, lengths: np.ndarray, targets: int) -> float:
        """FLOPs of a forward and backward pass over rows of these lengths in tokens, with `targets` in all."""
        tokens = lengths.astype("float64")
        return float(self.per_token * tokens.sum() + self.per_pair * (tokens**2).sum() + self.per_target * targets)


def measure_flops(objective: Objective, model: Any, train: TokenFile, pad_id: int, device: torch.device) -> Flops:
    """Count the FLOPs of training `model` on some of the rows; random numbers and gradients are left as they were.

    On a CPU attention is computed as matrix products for this: its fused kernel is not among those that torch counts.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    was_training, counts = model.training, []
    model.eval()
    attention = sdpa_kernel([SDPBackend.MATH]) if device.type == "cpu" else nullcontext()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), attention:
        for row in _choose_rows(train.lengths):
            batch = objective.collate(train.rows([row]), pad_id, True)
            with FlopCounterMode(display=False) as counter:
                loss, targets = objective.compute_loss(
                    model, {name: tensor.to(device) for name, tensor in batch.items()}
                )
                if loss.requires_grad:
                    loss.backward()  # type: ignore[no-untyped-call]
            tokens = float(train.lengths[row])
            counts.append((tokens, tokens**2, float(targets), float(counter.get_total_flops())))
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    counted = np.array(counts)
    return Flops(*_fit(counted[:, :3], counted[:, 3]))


def count_weights(parameters: Sequence[torch.nn.Parameter]) -> int:
    """The number of weights in the parameters; four-bit ones, packed two per byte, keep their shape in quant_state."""
    states = [getattr(parameter, "quant_state", None) for parameter in parameters]
    return sum((p if s is None else s).shape.numel() for p, s in zip(parameters, states, strict=True))


def _choose_rows(lengths: np.ndarray) -> list[int]:
    """ROWS rows of different lengths, from the shortest to the longest of at most MAX_LENGTH tokens."""
    order = np.argsort(lengths, kind="stable")
    order = order[: max(1, int((lengths <= MAX_LENGTH).sum()))]
    places = np.linspace(0, len(order) - 1, ROWS).round().astype(int)
    return [int(row) for row in dict.fromkeys(order[places].tolist())]


def _fit(features: np.ndarray, flops: np.ndarray) -> list[float]:
    """The factors of the features, none of them negative, with the least relative squared error."""
    weighted = features / flops[:, None].clip(1)
    best, least = [0.0, 0.0, 0.0], np.inf
    for chosen in product([False, True], repeat=features.shape[1]):
        columns = np.flatnonzero(chosen)
        if not len(columns):
            continue
        scale = weighted[:, columns].max(0).clip(1e-30)
        factors = np.linalg.lstsq(weighted[:, columns] / scale, np.ones(len(flops)), rcond=None)[0] / scale
        error = float(((weighted[:, columns] @ factors - 1) ** 2).sum())
        if (factors >= 0).all() and error < least:
            best, least = [0.0, 0.0, 0.0], error
            for column, factor in zip(columns.tolist(), factors.tolist(), strict=True):
                best[column] = factor
    return best
