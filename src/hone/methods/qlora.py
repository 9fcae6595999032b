"""QLoRA (Dettmers et al., arXiv 2305.14314): LoRA beside four-bit weights, by bitsandbytes and PEFT.

Merging dequantizes the four-bit weights to float32 and adds the adapter: the merged model computes what was trained.
PEFT's own merge rounds the sum to four bits again.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.methods import adapters
from hone.methods.lora import Lora
from hone.parts.options import option

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class QLora(Lora):
    """Train low-rank matrices beside four-bit weights, and the head: the base model takes an eighth of its memory."""

    libraries: ClassVar[tuple[str, ...]] = ("peft", "bitsandbytes")

    double: bool = option(True, "Quantize the scales of the weights to eight bits too: saves 0.4 bits per weight.")
    merged: bool = option(
        True,
        "Register merged weights, dequantized to float32; false registers the adapter alone, for the unquantized base.",
    )

    def prepare(self, model: PreTrainedModel) -> Any:
        """A PeftModel of `model` with its inner linear layers in NF4, and trainable adapters and head.

        Raises ModelError for a name that no layer has, and if bitsandbytes is missing or does not work here.
        """
        return super().prepare(self._quantize(model))

    def merge(self, model: Any) -> PreTrainedModel | None:
        """The base model, dequantized to float32, with the adapters added into its weights; None if not `merged`."""
        from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

        if not self.merged:
            return None
        model = model.to("cpu")
        config, state = model.active_peft_config, get_peft_model_state_dict(model, save_embedding_layers=False)
        plain = model.unload()
        _dequantize_layers(plain)
        dequantized = get_peft_model(plain, config)
        set_peft_model_state_dict(dequantized, state)
        return super().merge(dequantized)

    @property
    def can_merge(self) -> bool:
        """Whether merged weights are registered; otherwise the adapter is, and `merge` returns None."""
        return self.merged

    def load_on_base(self, model: PreTrainedModel, directory: Path) -> Any:
        """The base `model` in NF4 with the adapter in `directory` beside its weights."""
        return super().load_on_base(self._quantize(model), directory)

    def _quantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with its inner linear layers in NF4; quantized on the CPU, for the same bits on every device."""
        _check_bitsandbytes()
        fp32_modules = set(getattr(model, "_keep_in_fp32_modules", None) or ())
        for name, layer in adapters.list_linear_layers(model, inner=True).items():
            if not fp32_modules & set(name.split(".")):
                model.set_submodule(name, _four_bits(layer, self.double))
        model.is_loaded_in_4bit = True  # PEFT checks this attribute
        return model


@functools.cache
def _layer_class() -> Any:
    """The class of a four-bit linear layer, made in a function because it needs bitsandbytes.

    Products are in autocast's dtype within autocast, else in that of the input. bitsandbytes' own layer (0.50) keeps
    the dtype of the first batch and rounds the bias to it. On a CPU with AVX-512 BF16 its first call without gradients
    packs the weights by 32 rows, with scales in bfloat16: other numbers of rows then raise an AssertionError, and no
    gradients flow.
    """
    import bitsandbytes
    import torch
    from torch.nn.functional import linear

    class Product(torch.autograd.Function):
        """x Wᵀ + bias on a CPU. The backward pass dequantizes again: only the four-bit weights are saved for it."""

        @staticmethod
        def forward(context: Any, x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
            context.weight = weight
            return linear(x, _dequantize_weight(weight, x.dtype), bias)

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
            [gradient] = gradients
            needs_x, _, needs_bias = context.needs_input_grad
            return (
                gradient @ _dequantize_weight(context.weight, gradient.dtype) if needs_x else None,
                None,
                gradient.flatten(0, -2).sum(0) if needs_bias else None,
            )

    class FourBits(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
        conv1d = False

        def forward(self, x: Tensor) -> Tensor:
            device = x.device.type
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
            bias = None if self.bias is None else self.bias.to(dtype)
            if device == "cpu":
                product: Tensor = Product.apply(x.to(dtype), self.weight, bias)  # type: ignore[no-untyped-call]
            else:
                state = self.weight.quant_state
                product = bitsandbytes.matmul_4bit(x.to(dtype), self.weight, bias=bias, quant_state=state)
            return product.to(x.dtype)

        def dequantize(self) -> Tensor:
            return _dequantize_weight(self.weight, torch.float32)

        @property
        def W_q(self) -> Tensor:  # noqa: N802
            """Makes PEFT's DoRA call this layer's `dequantize` instead of bitsandbytes' function."""
            weight: Tensor = self.weight
            return weight

    return FourBits


def _dequantize_weight(weight: Any, dtype: torch.dtype) -> Tensor:
    """The weight dequantized from four bits; the same values on any processor."""
    from bitsandbytes.functional import dequantize_4bit

    state = copy.copy(weight.quant_state)
    shape, size = state.shape, state.shape.numel()
    # One row per block: with AVX-512, bitsandbytes (0.50) takes wrong scales where the row's width is a multiple of 16
    # but not of 64 (gpt-nano-sort, 48 wide, then sorts 646 of 729 inputs). A training step costs the same.
    state.shape = (size // state.blocksize, state.blocksize) if size % state.blocksize == 0 else (1, size)
    state.dtype = dtype
    dequantized: Tensor = dequantize_4bit(weight.data, state)
    return dequantized.reshape(shape)


def _four_bits(layer: Any, double: bool) -> nn.Module:
    """The linear layer `layer` with its weights in NF4, in blocks of 64."""
    import bitsandbytes
    import torch
    from torch import nn

    conv1d = not isinstance(layer, nn.Linear)
    weight = (layer.weight.T if conv1d else layer.weight).detach().contiguous()
    quantized = _layer_class()(weight.shape[1], weight.shape[0], layer.bias is not None, device="meta")
    quantized.conv1d, quantized.bias = conv1d, layer.bias
    parameter = bitsandbytes.nn.Params4bit(weight, quant_type="nf4", compress_statistics=double, module=quantized)
    quantized.weight = parameter.to(torch.device("cpu"))  # moving it quantizes it
    module: nn.Module = quantized
    return module


def _dequantize_layers(model: PreTrainedModel) -> None:
    """Replace the four-bit layers of `model` with float32 layers of the dequantized weights."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, layer in list(model.named_modules()):
        if isinstance(layer, _layer_class()):
            weight = layer.dequantize()
            outs, ins = weight.shape
            plain = Conv1D(outs, ins) if layer.conv1d else nn.Linear(ins, outs, bias=layer.bias is not None)
            plain.weight = nn.Parameter((weight.T if layer.conv1d else weight).contiguous())
            plain.bias = layer.bias
            model.set_submodule(name, plain)
    del model.is_loaded_in_4bit


def _check_bitsandbytes() -> None:
    """Raise ModelError if bitsandbytes is not installed, or fails on a small four-bit product on this machine."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Each row is one block of one repeated number, which four bits represent exactly.
    layer = nn.Linear(64, 64, bias=False)
    layer.weight.data = torch.arange(1.0, 65).view(64, 1).repeat(1, 64)
    expected = layer.weight.data.sum(1).to(device)
    try:
        product = _four_bits(layer, double=False).to(device)(torch.ones(1, 64, device=device))[0]
    except ModuleNotFoundError as fault:
        raise ModelError(
            f"needs {fault.name}, which is not installed",
            where="method.kind qlora",
            fix="Install it: pip install 'hone[qlora]'; or choose the method lora.",
        ) from fault
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError) as fault:
        raise ModelError(
            f"bitsandbytes cannot multiply with four-bit weights on this {device}: {fault}",
            where="method.kind qlora",
            fix="Install a build of bitsandbytes for this device, or choose the method lora.",
        ) from fault
    if not torch.allclose(product, expected, rtol=0.01):
        raise ModelError(
            f"bitsandbytes gives wrong products of four-bit weights on this {device}",
            where="method.kind qlora",
            fix="Install another version of bitsandbytes, or choose the method lora.",
        )
