"""How a model learns: the settings of the training loop, and the config's `training` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hone.parts.options import option


@dataclass(frozen=True)
class Settings:
    """How the model learns."""

    epochs: float = option(3.0, "Passes over the training rows.", gt=0, le=1000)
    max_steps: int = option(0, "Maximum number of optimizer steps; 0 for no limit.", ge=0)
    batch_size: int = option(32, "Rows of one optimizer step (the effective batch).", ge=1)
    micro_batch_size: int = option(0, "Rows that go through the model at once; 0 for the whole batch.", ge=0)
    learning_rate: float | None = option(
        None, "Peak learning rate; empty for the method's default (docs/training.md).", gt=0, le=1
    )
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "How the learning rate falls after warm-up.")
    warmup: float = option(0.1, "Share of steps over which the learning rate rises linearly.", ge=0, lt=1)
    layer_decay: float = option(
        1.0, "Factor of the learning rate from each layer to the one below it, down to the embeddings.", gt=0, le=1
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = option(
        "adamw",
        "AdamW, torch's or bitsandbytes': 8bit: moments in a quarter of the memory; paged: they may leave the GPU.",
    )
    weight_decay: float = option(0.01, "AdamW's decoupled weight decay.", ge=0, le=1)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0 disables clipping.", ge=0)
    select: Literal["best", "last"] = option(
        "best",
        "Weights to keep: those of the best evaluation on the validation rows, if there are any, or the last ones.",
    )
    metric: str = option(
        "",
        "Validation metric by which an evaluation is best: one of the objective's or loss; '' for its main one.",
    )
    patience: int = option(
        0, "Stop when this many evaluations have not been better than the best one; 0 disables early stopping.", ge=0
    )
    evaluations: int = option(
        0, "Number of evaluations on the validation split, evenly spread; 0 for one per epoch.", ge=0
    )
    checkpoint_seconds: float = option(60.0, "Minimum seconds between two checkpoints; 0 for every step.", ge=0)
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "auto: bf16 if the device supports it and it is faster."
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: CUDA if available.")
    gradient_checkpointing: bool = option(
        False, "Recompute activations in the backward pass: less memory, about a third more time, the same gradients."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = option(
        "auto", "Implementation of attention in training; auto: what transformers chooses for the model."
    )
    neftune: float = option(
        0.0, "NEFTune's alpha: noise on the embeddings in training, such as 5 for instruction tuning; 0 for none.", ge=0
    )
    group_by_length: bool = option(True, "Batch rows of similar length: less padding, the same rows in each epoch.")
    compile: bool = option(False, "Compile the model with torch.compile.")
    seed: int = option(17, "Seed of the head's initial weights, dropout and the order of rows.", ge=0)
