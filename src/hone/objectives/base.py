"""What every objective is: rows in, a head, a loss, and what the model says of rows it has not seen.

Needs torch, transformers and pyarrow alone, and lies in every registered model: what answers there is what was tested.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Batch = dict[str, "Tensor"]
Targets = Mapping[str, Any]
# What a model says of n encoded rows: named columns, each an array or a list with an entry for each row. `scores`
# holds floats that are the same, to rounding, whenever the weights are.
Predictions = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A figure: its title, whether less of it is better, and whether it is a share in 0..1, shown in percent."""

    title: str
    lower: bool = False
    share: bool = True


@dataclass(frozen=True)
class Outcome:
    """How one system did on n rows.

    `statistics` [rows, k], float64: their sums over any rows decide every figure of those rows (`Objective.figures`).
    `answers` and `references`: what it said and what was right, as a person reads it. `errors` [rows]: 0 where it was
    right, else the larger the worse. `confidences` [rows]: the probability it gave its answer, None for no such thing.
    `classes` [2, rows]: the right class and the answered one where there are classes, else None.
    """

    statistics: np.ndarray
    answers: Sequence[str]
    references: Sequence[str]
    errors: np.ndarray
    confidences: np.ndarray | None = None
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Objective(ABC):
    """A frozen dataclass of options (`hone.parts.options.option`) that says what is learned.

    columns      must be in the rows, all of them text; what was nested is JSON
    text         those of them that hold text, which curation may rewrite (`pieces`)
    label        the one that holds the class, '' for none
    inputs       those that a served model is asked with
    outputs      what it answers with, by name, in MLflow's words: string, double, long; `string[]` for a list of them
    pipeline     the transformers pipeline that serves such models
    measures     the figures, by name; the first is the one that is compared
    untuned      whether the base model can, before it is tuned
    needs_rows   whether `outcome` needs the rows' text, and not only their tokens
    tunes        whether `tune` chooses something on the validation rows, once a model is trained
    leaves_out   why `encode` may leave a row out of the encoded ones, '' where it never does
    """

    columns: ClassVar[tuple[str, ...]]
    text: ClassVar[tuple[str, ...]]
    label: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[Mapping[str, str]]
    pipeline: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    works_untuned: ClassVar[bool] = False
    needs_rows: ClassVar[bool] = False
    tunes_targets: ClassVar[bool] = False
    drop_reason: ClassVar[str] = ""

    @property
    def has_neighbour_baseline(self) -> bool:
        """Whether nearest neighbours by the base model's embeddings can do the same: whether it says how they vote."""
        return type(self).neighbour_predictions is not Objective.neighbour_predictions

    @property
    def main_metric(self) -> str:
        """The figure that is compared."""
        return next(iter(self.metrics))

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """A source's row with the objective's columns: itself, where it has them as they are.

        Other forms of the same thing (alpaca for messages, spans for tags) are brought into one here, nested values as
        Python objects. Raises ValueError with what is wrong with a row, which is then refused.
        """
        return values

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Each row as a person reads it: its text columns one below the other, '' for null."""
        columns = [[text or "" for text in rows.column(name).to_pylist()] for name in self.text]
        return columns[0] if len(columns) == 1 else ["\n".join(texts) for texts in zip(*columns, strict=True)]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The texts in one value of a `text` column: itself, where it is plain."""
        return [value]

    def replace_texts(self, column: str, value: str, pieces: list[str]) -> str:
        """The value with its texts rewritten."""
        return pieces[0]

    def inference_inputs(self, rows: pa.Table) -> list[dict[str, str]]:
        """The rows as a caller of the served model would send them, each with the `inputs`."""
        found: list[dict[str, str]] = rows.select(list(self.inputs)).to_pylist()
        return found

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """The rows `after` their texts were rewritten, with what points into them pointing there again.

        And for each row '', or a reason to drop it: what pointed into its text is no longer there.
        """
        return after, [""] * after.num_rows

    def strata(self, rows: pa.Table) -> list[str]:
        """The kind of each row: a random split gives each kind its share of every part. '' for all where all are one.

        A kind of one row is for training.
        """
        return [name or "" for name in rows[self.label].to_pylist()] if self.label else [""] * rows.num_rows

    @abstractmethod
    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """What the training rows say of the head, JSON-able: `{"labels": [sorted names]}`."""

    def option_files(self) -> tuple[Path, ...]:
        """The files that its options name: what is in them decides the tokens."""
        return ()

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase, targets: Targets) -> dict[str, Any]:
        """The targets with what this objective settles about the base's tokenizer, which it changes in place.

        Asked before rows are encoded, and again, with the targets that came of it, before the tokenizer is saved
        beside the trained model. A target called `..._sha256` becomes a tag of the model version.
        """
        return dict(targets)

    @abstractmethod
    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """Encoded rows: `id`, `input_ids` (list<int32>), `lost` (int32, tokens cut), and what the loss needs.

        A row may become several. Without `labelled` the rows have the `inputs` alone, and nothing is there to compare.
        """

    def pack_rows(self, tokens: pa.Table, max_length: int) -> Iterator[pa.Table] | None:
        """The encoded training rows, several in one of at most `max_length` tokens, batch by batch.

        None where each is learned from by itself. `tokens` is mapped into memory, and not meant to be copied whole.
        """
        return None

    @abstractmethod
    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """A padded batch of encoded rows, given by column: input_ids, attention_mask [rows, tokens], labels.

        Outside of training there is also the column `position`, each row's place among those that are read.
        """

    @abstractmethod
    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in the directory `base`, float32, with this objective's head for `targets`.

        `config.pad_token_id` is set: the id to collate with. A new head's weights are random: seed torch before.
        """

    def check_model(self, model: Any, where: str) -> None:  # noqa: B027 - most objectives can take any
        """Raise ModelError, about `where`, where the model as the method prepared it cannot be trained on such rows."""

    @abstractmethod
    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed loss of a batch, and how many targets (rows, or unmasked tokens) it is a sum over."""

    @abstractmethod
    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """What the model says of each row of a batch (`Raw`), on the CPU."""

    @property
    def needs_reference_model(self) -> bool:
        """Whether the loss needs what the base model says of the rows, before it is trained (`refer`)."""
        return False

    def reference_columns(self, raw: Predictions) -> dict[str, Sequence[Any]]:
        """Columns, by name, that encoded rows are given when it is known what the base model says of them, `raw`.

        Training rows get them where `reference`, test rows where `untuned`.
        """
        return {}

    def decode_generated(self, raw: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """What was read with generated token ids turned into text; itself, where nothing is generated."""
        return raw

    def tune_targets(self, tokens: pa.Table, raw: Predictions, targets: Targets) -> Targets:
        """The targets with what is chosen on the validation rows `tokens`, of which a system said `raw`: thresholds.

        Where `tunes`, every system that is compared has its own; the model's are served with it. `outcome` and
        `answers` also work with targets that were not tuned.
        """
        return targets

    @abstractmethod
    def compute_outcome(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """How a system that said `raw` of the encoded rows `tokens` did on the rows, in their order.

        `rows` are given where `needs_rows`.
        """

    @abstractmethod
    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Each of `measures`, [n], by the n columns of `sums` [k, n]; nan where it is not defined."""

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """The same for each class or type, with `support`: how many there are of it. Empty where there are none."""
        return {}

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """What simple systems, by name, say of the encoded rows `test`, whose texts are `rows`."""
        return {}

    def neighbour_predictions(
        self, weights: np.ndarray, at: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """What the nearest training rows say: those at positions `at` [rows, k], each with its weight.

        Objectives that leave it as it is are not compared with them.
        """
        return {}

    @abstractmethod
    def build_answers(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """What a caller is told of each of `rows`: a dictionary with the `outputs`."""
