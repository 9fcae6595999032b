"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the trainable weights, and gradient clipping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def make_adamw(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> torch.optim.AdamW:
    """AdamW, fused, over the trainable parameters of `model`.

    Matrices decay; biases, norms and embeddings do not: a token that occurs in no row keeps its pre-trained vector.
    Each group has the factor `scale` of its learning rate: `layer_decay` to the power of the number of layers above it,
    1 for what comes after the layers (Howard and Ruder, arXiv 1801.06146; Clark et al., arXiv 2003.10555).
    """
    import torch

    embeddings = {
        id(p) for module in model.modules() if _is_embedding(module) for p in module.parameters(recurse=False)
    }
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    scales = _scale_by_layer(model, layer_decay)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and id(parameter) not in embeddings
            groups.setdefault((not decays, -scales.get(name, 1.0)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[still, scale], "weight_decay": 0.0 if still else weight_decay, "scale": -scale}
            for still, scale in sorted(groups)
        ],
        lr=0.0,
        fused=True,
    )


def _scale_by_layer(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """The factor of each parameter's learning rate by its name; empty for `layer_decay` 1.

    Layers are numbered within each stack of them, from its last one. What belongs to no stack is above all layers if it
    comes after them in the model, else (embeddings, most often) below.
    """
    if layer_decay == 1:
        return {}
    from hone.methods.freeze import find_layer_stack

    stack, layers = find_layer_stack(model)
    scales, seen = {}, False
    for name, _ in model.named_parameters():
        layer = re.fullmatch(rf"(.*\.)?{re.escape(stack.rpartition('.')[2])}\.(\d+)\..*", name)
        seen = seen or layer is not None
        above = len(layers) - 1 - int(layer[2]) if layer else 0 if seen else len(layers)
        scales[name] = layer_decay ** max(above, 0)
    return scales


def _is_embedding(module: nn.Module) -> bool:
    from torch import nn

    from hone.training.embeddings import UsedRows

    return isinstance(module, (nn.Embedding, UsedRows))


def clip_gradients(gradients: Sequence[torch.Tensor], factor: float, max_norm: float) -> Any:
    """Multiply gradients in place by `factor`, then clip them to the norm `max_norm` (0: no limit); returns their norm.

    The norm, of the gradients times `factor` before clipping, is a tensor on the device.
    """
    import torch

    norm = torch.nn.utils.get_total_norm(gradients) * factor
    scale = torch.as_tensor(factor, device=norm.device)
    if max_norm:
        scale = scale * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if norm.is_cuda or float(scale) != 1.0:
        torch._foreach_mul_(list(gradients), scale)
    return norm
