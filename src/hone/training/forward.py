"""How a model runs forward in training: with or without dropout, with recomputed activations, with noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from hone.training.settings import Settings


def prepare_forward(model: Any, plain: PreTrainedModel, settings: Settings) -> None:
    """Set attention and checkpointing of `plain`, the transformers model in `model`, and add noise to its embeddings.

    Raises ConfigError if the architecture or the installed packages do not support them.
    """
    if settings.attention != "auto":
        try:
            plain.set_attn_implementation(settings.attention)
        except (ImportError, ValueError) as fault:
            raise ConfigError(
                f"{type(plain).__name__} cannot run with {settings.attention}: {fault}",
                where="training.attention",
                fix="Choose another, or auto.",
            ) from fault
    if settings.gradient_checkpointing:
        if not plain.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(plain).__name__} has no gradient checkpointing",
                where="training.gradient_checkpointing",
                fix="Set training.micro_batch_size to a smaller number instead.",
            )
        plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.neftune:
        _add_noise(model, plain.get_input_embeddings(), settings.neftune)


def set_training_mode(model: nn.Module, *, dropout: bool) -> None:
    """Switch `model` to training; without `dropout` only the modules that recompute activations, and `model` itself."""
    model.train()
    if dropout:
        return
    for module in model.modules():
        module.training = module is model or getattr(module, "gradient_checkpointing", False)


def _add_noise(model: nn.Module, embedding: nn.Module, alpha: float) -> None:
    """NEFTune (Jain et al., arXiv 2310.05914): uniform noise of +-`alpha` / sqrt(tokens x width) while training."""
    import torch

    def add(_: nn.Module, __: Any, vectors: torch.Tensor) -> torch.Tensor:
        if not model.training:
            return vectors
        bound = alpha / float(vectors.shape[-2] * vectors.shape[-1]) ** 0.5
        return vectors + torch.empty_like(vectors).uniform_(-bound, bound)

    embedding.register_forward_hook(add)
