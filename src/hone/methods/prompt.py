"""Prompt tuning (Lester et al., arXiv 2104.08691) by PEFT: learned vectors precede the tokens of each row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.methods import adapters
from hone.parts.options import option

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Prompt:
    """Train vectors that precede the tokens of each row, and the head. Served as an adapter on its base model."""

    adapter: ClassVar[bool] = True
    default_learning_rate: ClassVar[float] = (
        0.03  # as in the examples of PEFT; Lester et al., arXiv 2104.08691, 0.3 with Adafactor
    )
    can_merge: ClassVar[bool] = False
    merged: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("peft",)
    suggested_values: ClassVar[dict[str, tuple[Any, ...]]] = {"virtual_tokens": (10, 20, 50, 100)}

    virtual_tokens: int = option(20, "Number of virtual tokens; each takes up the position of a token.", ge=1, le=1000)

    def prepare(self, model: PreTrainedModel) -> Any:
        """A PeftModel of `model` with trainable vectors and head; vectors start as embeddings of random tokens.

        Raises ModelError for a model whose head needs token ids or the last position, or that has no head.
        """
        from peft import PromptTuningConfig, get_peft_model

        task = adapters.find_task_type(model)
        unfit = model.config.is_encoder_decoder or getattr(model.config, "summary_type", "") == "last"
        if task == "FEATURE_EXTRACTION" or (task == "SEQ_CLS" and unfit):
            raise ModelError(
                "its head needs token ids or the last position: no vectors can stand before the words",
                where=type(model).__name__,
                fix="Choose the method lora or ia3.",
            )
        config = PromptTuningConfig(
            task_type=task,
            num_virtual_tokens=self.virtual_tokens,
            prompt_tuning_init="SAMPLE_VOCAB",
            modules_to_save=adapters.find_new_head(model),
        )
        return adapters.align_outputs(get_peft_model(model, config))

    def merge(self, model: Any) -> PreTrainedModel | None:
        """None: the vectors cannot be merged into the model's weights."""
        return None

    def load_on_base(self, model: PreTrainedModel, directory: Path) -> Any:
        """The base `model` with the vectors in `directory`."""
        return adapters.load_adapter(model, directory)
