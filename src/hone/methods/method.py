"""The protocol of a method: it decides which weights of a model are trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Protocol):
    """A frozen dataclass of options (`hone.parts.options.option`). `adapter` says whether it adds weights (PEFT).

    A method may have a `default_learning_rate`, else it is that of `full`, and `suggested_values`, which
    `hone sweep --suggest` offers for its options.
    """

    adapter: ClassVar[bool]

    def prepare(self, model: PreTrainedModel) -> Any:
        """The model to train: trainable parameters have `requires_grad`, adapters are in place.

        Raises ModelError if the method does not fit the model, with what the model has.
        """

    def merge(self, model: Any) -> PreTrainedModel | None:
        """A plain transformers model that computes what the trained one does.

        None if there is none: then `hone.methods.adapters.load_for_serving` puts the adapter on its base model.
        """


@runtime_checkable
class AdapterMethod(Method, Protocol):
    """A method that adds weights to those of the base model."""

    @property
    def can_merge(self) -> bool:
        """Whether `merge` returns a model."""

    @property
    def merged(self) -> bool:
        """Whether the merged model is registered; otherwise the adapter alone is."""

    def load_on_base(self, model: PreTrainedModel, directory: Path) -> Any:
        """The base `model` with the adapter in `directory` beside its weights, as it was trained."""
