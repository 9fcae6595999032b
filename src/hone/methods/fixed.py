"""The parameters that an architecture holds fixed: the sinusoidal positions of Marian, Pegasus and RoFormer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def list_fixed_parameters(model: nn.Module) -> set[str]:
    """The names of the parameters that a new model of this class and configuration does not train.

    `from_pretrained` marks all parameters as trainable. Marian does not save its positions either: trained, they would
    be lost. Empty for what is not a transformers model.
    """
    import torch

    config = getattr(model, "config", None)
    if config is None:
        return set()
    with torch.device("meta"):  # shapes alone: nothing is computed
        new = type(model)(config)
    return {name for name, parameter in new.named_parameters() if not parameter.requires_grad}
