"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the trainable weights, and gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def make_adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, fused, over the trainable parameters of `model`.

    Matrices decay; biases, norms and embeddings do not: a token that occurs in no row keeps its pre-trained vector.
    """
    import torch

    embeddings = {
        id(p) for module in model.modules() if _is_embedding(module) for p in module.parameters(recurse=False)
    }
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in trainable if p.ndim < 2 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


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
