"""How a model learns: the settings of the training loop, and the config's `training` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hone.parts.options import option


@dataclass(frozen=True)
class Settings:
    """How the model learns."""

    epochs: float = option(3.0, "Passes over the training rows.", gt=0, le=1000)
    max_steps: int = option(0, "Stop after this many optimizer steps; 0 for no such limit.", ge=0)
    batch_size: int = option(32, "Rows of one optimizer step (the effective batch).", ge=1)
    micro_batch_size: int = option(0, "Rows that go through the model at once; 0 for all of a batch.", ge=0)
    learning_rate: float = option(5e-5, "The highest learning rate.", gt=0, le=1)
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "How it falls after the warm-up.")
    warmup: float = option(0.1, "The share of steps over which the learning rate rises.", ge=0, lt=1)
    weight_decay: float = option(0.01, "AdamW's decoupled weight decay.", ge=0, le=1)
    max_grad_norm: float = option(1.0, "Gradients are scaled down to this norm; 0 leaves them be.", ge=0)
    patience: int = option(
        0, "Stop when the validation loss has not improved for this many evaluations; 0 never.", ge=0
    )
    evaluations: int = option(0, "Evaluations on the validation split, evenly spread; 0 for one each epoch.", ge=0)
    checkpoint_seconds: float = option(60.0, "Least seconds between two checkpoints; 0 for every step.", ge=0)
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto: bf16 where it is there and faster.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: CUDA where it is there.")
    group_by_length: bool = option(True, "Batches of rows of like length: less padding, the same rows.")
    compile: bool = option(False, "torch.compile the model.")
    seed: int = option(17, "Seed of the head's weights, of dropout and of the order of rows.", ge=0)
