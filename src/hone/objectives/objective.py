"""What every objective is: rows in, a head, a loss and scores out. Needs torch, transformers and pyarrow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Batch = dict[str, "Tensor"]


class Objective(Protocol):
    """A frozen dataclass of options (`hone.options.option`) that says what is learned.

    `columns` must be in the rows; `text` names those that hold text, `label` the one that holds the target
    ('' for none). `main_metric` is the one, of those `metrics` gives, that is compared and that early stopping
    does not use (that uses the validation loss). `pipeline` is the transformers pipeline that serves it.
    """

    columns: ClassVar[tuple[str, ...]]
    text: ClassVar[tuple[str, ...]]
    label: ClassVar[str]
    main_metric: ClassVar[str]
    pipeline: ClassVar[str]

    def targets(self, train: pa.Table) -> dict[str, Any]:
        """What the training rows say of the head, JSON-able: `{"labels": [sorted names]}`."""

    def encode(
        self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, targets: Mapping[str, Any]
    ) -> pa.Table:
        """A row for each of `rows`: `id`, `input_ids` (list<int32>), `label` (int64), `lost` (int32, tokens cut)."""

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int) -> Batch:
        """A padded batch of encoded rows, given by column: input_ids, attention_mask [rows, tokens], labels [rows]."""

    def model(self, base: Path, targets: Mapping[str, Any]) -> PreTrainedModel:
        """The base model in the directory `base`, float32, with this objective's head for `targets`.

        `config.pad_token_id` is set: the id to collate with.
        """

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed loss of a batch, and how many targets (rows, or unmasked tokens) it is a sum over."""

    def scores(self, model: Any, batch: Batch) -> Tensor:
        """What the model says of each row, float32: class probabilities [rows, classes]."""

    def metrics(self, references: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        """Figures in 0..1 (`accuracy`, `macro_f1`): fast, for it is called a thousand times by the bootstrap."""

    def details(self, references: np.ndarray, scores: np.ndarray, targets: Mapping[str, Any]) -> dict[str, Any]:
        """What only this objective has, JSON-able: `per_class` {label: precision, recall, f1, support}, `confusion`."""
