"""What every method is: a model in, the same model out with some of its weights set to move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Protocol):
    """A frozen dataclass of options (`hone.options.option`). `adapter` says whether it adds weights (PEFT)."""

    adapter: ClassVar[bool]

    def prepare(self, model: PreTrainedModel) -> Any:
        """The model to train: parameters that move have `requires_grad`, adapters are in place.

        Raises ModelError where the method does not fit the model, and says what there is.
        """

    def merge(self, model: Any) -> PreTrainedModel:
        """A plain transformers model that computes what the trained one does."""
