"""Losses on preferences, one per row, from the log-probabilities of its completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Losses [rows] from the log ratios [rows] of model to reference (Rafailov et al., arXiv 2305.18290, eq. 7)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected))


def orpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Losses [rows] from mean log-probabilities of a token [rows] (Hong et al., arXiv 2403.07691, equation 6).

    The negative log-likelihood of the chosen plus beta times the odds-ratio term. As in the paper, the first term is
    over the chosen completion alone; trl includes its prompt.
    """
    from torch.nn.functional import logsigmoid

    odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - beta * logsigmoid(odds)


def kto_loss(ratios: Tensor, desirable: Tensor, kl: Tensor, beta: float) -> Tensor:
    """Losses [completions] from log ratios and whether each is desirable (Ethayarajh et al., arXiv 2402.01306, eq. 8).

    `kl` estimates how far the model is from its reference: the point that log ratios are compared with.
    """
    from torch import where

    return 1 - (beta * where(desirable, ratios - kl, kl - ratios)).sigmoid()


def _log1mexp(value: Tensor) -> Tensor:
    """log(1 - exp(value)) for negative values, accurate both near 0 and far from it (Mächler, 2012)."""
    import torch

    value = value.clamp(max=-1e-7)  # a probability of 1 in float32's precision: the odds stay finite
    # -0.693 is -log 2, where Mächler switches from one form to the other.
    return torch.where(value < -0.6931472, torch.log1p(-value.exp()), torch.log(-torch.expm1(value)))
