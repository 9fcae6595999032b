"""Full fine-tuning: all weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Full:
    """Train all weights."""

    adapter: ClassVar[bool] = False

    def prepare(self, model: PreTrainedModel) -> Any:
        """The model itself, with all parameters trainable."""
        model.requires_grad_(True)
        return model

    def merge(self, model: Any) -> PreTrainedModel:
        """The model itself."""
        plain: PreTrainedModel = model
        return plain
