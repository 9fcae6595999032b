"""(IA)3 (Liu et al., arXiv 2205.05638) by PEFT: keys, values and inner activations are scaled by learned vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.methods import adapters
from hone.parts.options import option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Keys, values and, last, the layer after the inner activation, for model types that PEFT has no defaults for.
_OTHERS = (
    ("k_proj", "v_proj", "down_proj"),
    ("k_proj", "v_proj", "fc2"),
    ("key", "value", "output.dense"),
    ("k_lin", "v_lin", "lin2"),
    ("layer_2",),
)


@dataclass(frozen=True)
class Ia3:
    """Train vectors that scale keys, values and inner activations, and the head: some ten thousand weights."""

    adapter: ClassVar[bool] = True
    default_learning_rate: ClassVar[float] = 0.003  # Liu et al., arXiv 2205.05638
    can_merge: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("peft",)

    target_modules: tuple[str, ...] = option(
        (), "Linear layers that are scaled, by the ends of their names; empty uses PEFT's defaults for the model type."
    )
    feedforward_modules: tuple[str, ...] = option(
        (), "Those of target_modules whose input is scaled instead of their output; empty uses the defaults."
    )
    merged: bool = option(True, "Register merged weights; false registers the adapter alone.")

    def prepare(self, model: PreTrainedModel) -> Any:
        """A PeftModel of `model` with trainable vectors and head. Raises ModelError for a name that no layer has."""
        from peft import IA3Config, get_peft_model

        targets, inner = self._select_layers(model)
        config = IA3Config(
            task_type=adapters.find_task_type(model),
            target_modules=targets,
            feedforward_modules=inner,
            modules_to_save=adapters.find_new_head(model),
        )
        return get_peft_model(model, config)

    def merge(self, model: Any) -> PreTrainedModel | None:
        """The base model with its weights scaled, in place, and the trained head."""
        return adapters.merge_adapter(model)

    def load_on_base(self, model: PreTrainedModel, directory: Path) -> Any:
        """The base `model` with the adapter in `directory` beside its weights."""
        return adapters.load_adapter(model, directory)

    def _select_layers(self, model: PreTrainedModel) -> tuple[list[str], list[str]]:
        """The layers that are scaled, and those of them whose input is scaled instead of their output."""
        from peft.utils import constants

        unknown = sorted(set(self.feedforward_modules) - set(self.target_modules))
        if unknown:
            raise ModelError(
                f"method.feedforward_modules: {', '.join(unknown)} is not in method.target_modules",
                where=type(model).__name__,
                fix="Name it there too.",
            )
        usual = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
        targets = adapters.select_target_modules(model, self.target_modules, usual, _OTHERS)
        if not targets:
            raise ModelError(
                f"PEFT has no default layers for the model type {model.config.model_type}",
                where=type(model).__name__,
                fix="Name them in method.target_modules; there are "
                + ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in adapters.list_linear_layers(model))),
            )
        if self.target_modules:
            return targets, list(self.feedforward_modules)
        usual_inner = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(model.config.model_type, [])
        return targets, [name for name in usual_inner if name in targets] or targets[-1:]
