"""What is lost on preferences, for each row, from the log-probabilities of its completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """[rows], from the log ratios [rows] of model to reference (Rafailov et al., arXiv 2305.18290, equation 7)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected))


def orpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """[rows], from mean log-probabilities of a token [rows]: of the chosen, and the odds (Hong et al., 2403.07691).

    Equation 6: the first term is over the chosen completion alone, as there; trl takes in its prompt.
    """
    from torch.nn.functional import logsigmoid

    odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - beta * logsigmoid(odds)


def kto_loss(ratios: Tensor, desirable: Tensor, kl: Tensor, beta: float) -> Tensor:
    """[completions], from log ratios and whether each is wanted (Ethayarajh et al., arXiv 2402.01306, equation 8).

    `kl` is how far the model is from its reference: what both are measured from.
    """
    from torch import where

    return 1 - (beta * where(desirable, ratios - kl, kl - ratios)).sigmoid()


def _log1mexp(value: Tensor) -> Tensor:
    """log(1 - exp(value)) for negative values, exact for those near 0 and for those far from it (Mächler, 2012)."""
    import torch

    value = value.clamp(max=-1e-7)  # a probability of 1 to float32's precision: odds are finite all the same
    return torch.where(value < -0.6931472, torch.log1p(-value.exp()), torch.log(-torch.expm1(value)))
