"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the trainable weights, and gradient clipping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW32bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def make_optimizer(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0, kind: str = "adamw"
) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters of `model`: torch's, fused, or one of bitsandbytes, `kind` of Settings.

    Matrices decay; biases, norms and embeddings do not: a token that occurs in no row keeps its pre-trained vector.
    Each group has the factor `scale` of its learning rate: `layer_decay` to the power of the number of layers above it,
    1 for what comes after the layers (Howard and Ruder, arXiv 1801.06146; Clark et al., arXiv 2003.10555). Eight-bit
    moments (Dettmers et al., arXiv 2110.02861) are those of matrices of 4,096 numbers or more; embeddings, whose
    moments differ most from row to row, keep 32 bits, as the paper advises. Raises ModelError if bitsandbytes is not
    installed, or if a paged optimizer has no CUDA device.
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
    parameters: list[dict[str, Any]] = [
        {"params": groups[still, scale], "weight_decay": 0.0 if still else weight_decay, "scale": -scale}
        for still, scale in sorted(groups)
    ]
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, fused=True)
    wide = [p for group in parameters for p in group["params"] if id(p) in embeddings]
    return _make_bitsandbytes(kind, parameters, wide)


def _make_bitsandbytes(
    kind: str, parameters: list[dict[str, Any]], wide: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """An optimizer of bitsandbytes; the moments of `wide` keep 32 bits."""
    where = f"training.optimizer {kind}"
    try:
        from bitsandbytes import optim
    except ModuleNotFoundError as fault:
        fix = "Install it: pip install 'hone[qlora]'; or choose training.optimizer adamw."
        raise ModelError(f"needs {fault.name}, which is not installed", where=where, fix=fix) from fault
    device = parameters[0]["params"][0].device
    if kind.startswith("paged") and device.type != "cuda":
        fix = f"Choose {kind.removeprefix('paged_')}."
        raise ModelError(f"pages the memory of a CUDA device, and the device is {device.type}", where=where, fix=fix)
    manager = optim.GlobalOptimManager.get_instance()
    manager.initialize()  # one for the whole process: it would keep what another model set
    manager.override_config(list(wide), "optim_bits", 32)
    optimizer: torch.optim.Optimizer = getattr(optim, BITSANDBYTES[kind])(parameters, lr=0.0)
    return optimizer


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
