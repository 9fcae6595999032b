"""Low-rank adaptation (Hu et al., arXiv 2106.09685) by PEFT, with DoRA (2402.09353) and rsLoRA (2312.03732)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.methods import adapters
from hone.parts.options import option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Queries and values, as in the paper, for model types that PEFT has no defaults for.
_OTHERS = (("q_proj", "v_proj"), ("query", "value"), ("q", "v"))


@dataclass(frozen=True)
class Lora:
    """Train low-rank matrices beside the frozen weights, and the head."""

    adapter: ClassVar[bool] = True
    default_learning_rate: ClassVar[float] = 0.0002  # Dettmers et al., arXiv 2305.14314
    libraries: ClassVar[tuple[str, ...]] = ("peft",)
    suggested_values: ClassVar[dict[str, tuple[Any, ...]]] = {"rank": (8, 16, 32, 64)}

    rank: int = option(16, "Rank of the added matrices.", ge=1, le=1024)
    alpha: int = option(32, "Scale: the adapters' output is multiplied by alpha / rank.", ge=1)
    dropout: float = option(0.05, "Dropout on the adapters' input.", ge=0, lt=1)
    target_modules: tuple[str, ...] = option(
        (),
        "Linear layers that get adapters, by the ends of their names; empty uses PEFT's defaults for the model type.",
    )
    dora: bool = option(False, "Decompose each weight into magnitude and direction (DoRA).")
    rslora: bool = option(False, "Scale by alpha / sqrt(rank), which is more stable at high ranks (rsLoRA).")
    merged: bool = option(True, "Register merged weights; false registers the adapter alone.")

    def prepare(self, model: PreTrainedModel) -> Any:
        """A PeftModel of `model` with trainable adapters and head. Raises ModelError for a name that no layer has."""
        from peft import LoraConfig, get_peft_model
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

        config = LoraConfig(
            task_type=adapters.find_task_type(model),
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=adapters.select_target_modules(model, self.target_modules, USUAL, _OTHERS)
            or list(adapters.list_linear_layers(model, inner=True)),
            modules_to_save=adapters.find_new_head(model),
            use_dora=self.dora,
            use_rslora=self.rslora,
        )
        return get_peft_model(model, config)

    def merge(self, model: Any) -> PreTrainedModel | None:
        """The base model with the adapters added into its weights, in place, and the trained head."""
        return adapters.merge_adapter(model)

    @property
    def can_merge(self) -> bool:
        """True: the adapter is a change of the base model's weights."""
        return True

    def load_on_base(self, model: PreTrainedModel, directory: Path) -> Any:
        """The base `model` with the adapter in `directory` beside its weights."""
        return adapters.load_adapter(model, directory)
