"""Full fine-tuning: all weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone.methods.fixed import list_fixed_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Full:
    """Train all weights."""

    adapter: ClassVar[bool] = False
    default_learning_rate: ClassVar[float] = 5e-5  # Devlin et al., arXiv 1810.04805: 2e-5 to 5e-5

    def prepare(self, model: PreTrainedModel) -> Any:
        """The model itself, with all parameters trainable that the architecture does not hold fixed."""
        fixed = list_fixed_parameters(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in fixed)
        return model

    def merge(self, model: Any) -> PreTrainedModel:
        """The model itself."""
        plain: PreTrainedModel = model
        return plain
