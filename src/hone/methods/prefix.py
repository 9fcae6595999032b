"""Prefix tuning (Li and Liang, arXiv 2101.00190) by PEFT: each layer attends to learned keys and values too."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.methods import adapters
from hone.parts.options import option

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Prefix:
    """Train keys and values that precede those of each layer, and the head. Served as an adapter on its base model."""

    adapter: ClassVar[bool] = True
    default_learning_rate: ClassVar[float] = (
        0.01  # as in the examples of PEFT; Liu et al., arXiv 2110.07602, 5e-3 to 1e-2
    )
    can_merge: ClassVar[bool] = False
    merged: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("peft",)
    suggested_values: ClassVar[dict[str, tuple[Any, ...]]] = {"virtual_tokens": (10, 20, 50)}

    virtual_tokens: int = option(20, "Number of virtual tokens, each a key and a value in every layer.", ge=1, le=1000)

    def prepare(self, model: PreTrainedModel) -> Any:
        """A PeftModel of `model` with trainable keys, values and head.

        Raises ModelError for a model that does not accept keys and values as inputs, or has no head.
        """
        from peft import PrefixTuningConfig, get_peft_model

        task = adapters.find_task_type(model)
        accepts = "past_key_values" in inspect.signature(model.base_model.forward).parameters
        paired = model.config.is_encoder_decoder and task == "SEQ_CLS"
        if task == "FEATURE_EXTRACTION" or paired or not accepts:
            raise ModelError(
                "it takes no keys and values from outside",
                where=type(model).__name__,
                fix="Choose the method lora or ia3.",
            )
        config = PrefixTuningConfig(
            task_type=task, num_virtual_tokens=self.virtual_tokens, modules_to_save=adapters.find_new_head(model)
        )
        return adapters.align_outputs(get_peft_model(model, config))

    def merge(self, model: Any) -> PreTrainedModel | None:
        """None: keys and values cannot be merged into the model's weights."""
        return None

    def load_on_base(self, model: PreTrainedModel, directory: Path) -> Any:
        """The base `model` with the keys and values in `directory`."""
        return adapters.load_adapter(model, directory)
