"""Partial fine-tuning: train the head and, optionally, the top layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.parts.options import option

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Freeze:
    """Train the head and the top `layers` layers; all other weights stay frozen."""

    adapter: ClassVar[bool] = False

    layers: int = option(0, "Number of top layers that are trained besides the head.", ge=0)

    @property
    def default_learning_rate(self) -> float:
        """A head alone starts from random weights and learns fast; pre-trained layers as with `full`."""
        return 5e-5 if self.layers else 1e-3

    def prepare(self, model: PreTrainedModel) -> Any:
        """The model, with only its top `layers` layers and everything after them trainable.

        After the layers come the pooler or last norm, and the head. Raises ModelError if there are fewer layers, or if
        only a norm would be trained, because the head shares the weights of the embedding.
        """
        name, stack = find_layer_stack(model)
        if self.layers > len(stack):
            raise ModelError(
                f"method.layers is {self.layers}, and the model has {len(stack)} layers ({name})",
                where=type(model).__name__,
                fix=f"Set method.layers to {len(stack)} or less, or choose the method full.",
            )
        after = _list_parameters_after(model, name)
        if not self.layers and all(parameter.ndim < 2 for parameter in after):
            raise ModelError(
                "has no head of its own: without layers, freeze would train"
                f" {sum(parameter.numel() for parameter in after)} numbers of its last norm",
                where=type(model).__name__,
                fix="Set method.layers to 1 or more, or choose the method lora or full.",
            )
        model.requires_grad_(False)
        for parameter in after:
            parameter.requires_grad_(True)
        for layer in list(stack)[len(stack) - self.layers :]:
            layer.requires_grad_(True)
        return model

    def merge(self, model: Any) -> PreTrainedModel:
        """The model itself."""
        plain: PreTrainedModel = model
        return plain


def find_layer_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name of the list that holds a transformer's layers, and the list; the decoder's where there are two.

    It is the longest ModuleList of modules of one class, the last one if several are equally long. Raises ModelError
    if there is none.
    """
    from torch import nn

    longest: tuple[str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        is_stack = isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1
        if is_stack and (longest is None or len(module) >= len(longest[1])):
            longest = name, module
    if longest is None:
        raise ModelError(
            "no list of layers was found in it", where=type(model).__name__, fix="Choose the method full or lora."
        )
    return longest


def _list_parameters_after(model: nn.Module, stack: str) -> list[nn.Parameter]:
    """The parameters that come after the layer list named `stack`: pooler or last norm, and head.

    Some architectures define the norm or positions of their embeddings after the layers (BART): these come first.
    """
    names = [name for name, _ in model.named_parameters()]
    last = max(index for index, name in enumerate(names) if name.startswith(f"{stack}."))
    return [parameter for name, parameter in list(model.named_parameters())[last + 1 :] if "embed" not in name]
