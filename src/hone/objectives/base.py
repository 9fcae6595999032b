"""The protocol of an objective: what a model learns from rows, how it is trained and how it is evaluated.

Imports torch, transformers and pyarrow alone. The module is copied into every registered model, so that the code that
answers is the code that was evaluated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.objectives.shared.annotations import check_accepted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.prompting.prompting import Prompting
    from hone.rewriting import Rewritten

NOT_ASKED = "(not asked)"  # in place of an answer that was not generated
UNSEEN = "(not in training)"  # the name of all labels or types that no training row has
Batch = dict[str, "Tensor"]
# What a model must know besides its weights, JSON-able: class names, thresholds, scaling.
Targets = Mapping[str, Any]
# What a system outputs for n encoded rows: named columns, each an array or a list with one entry per row. The column
# `scores` holds floats that are equal, up to rounding, whenever the weights are.
Predictions = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A metric's title, whether lower values are better, and whether it is a share in 0..1 (shown in percent).

    The fields' names are keys in metrics.json.
    """

    title: str
    lower: bool = False
    share: bool = True


@dataclass(frozen=True)
class Outcome:
    """The results of one system on n rows.

    statistics    [rows, k], float64: their sums over any subset of rows determine every metric of that subset
                  (`Objective.compute_metrics`)
    predictions   the system's output for each row, as text for people
    references    the right output for each row, as text for people
    errors        [rows]: 0 for a right prediction, higher for a worse one
    confidences   [rows]: the probability that the system gave its prediction; None if it has no probabilities
    classes       [2, rows]: the right and the predicted class; None where there are no classes
    label_sets    [2, rows, labels], bool: the right and the predicted ones of several labels; None for other objectives
    """

    statistics: np.ndarray
    predictions: Sequence[str]
    references: Sequence[str]
    errors: np.ndarray
    confidences: np.ndarray | None = None
    classes: np.ndarray | None = None
    label_sets: np.ndarray | None = None


class RowReader:
    """Converts a source's rows one after the other, and knows what only all of them together show.

    A subclass overrides `convert` and `finish`. `notes` counts, by kind, what was changed in rows that are used, and
    what about them is odd.
    """

    def __init__(self, normalize_row: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self._normalize_row = normalize_row
        self.notes: Counter[str] = Counter()

    def read(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row in the objective's columns, as `convert` returns it; raises what that raises.

        Raises SkippedRow for a row that its annotator did not accept, whatever the objective is.
        """
        check_accepted(values)
        return self.convert(values)

    def convert(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `Objective.normalize_row`, which it calls; raises what that raises."""
        return self._normalize_row(values)

    def finish(self) -> Mapping[str, int]:
        """The notes, after the last row. Raises DataError if rows that are right by themselves cannot be together."""
        return dict(self.notes)


@dataclass(frozen=True)
class Objective(ABC):
    """A frozen dataclass whose fields are options (`hone.parts.options.option`); a subclass defines one objective.

    columns        names of the columns that rows must have; all hold text, nested values as JSON
    forms          further columns that `normalize_row` reads, in which rows of another form have the same data
    text           those of the columns that hold text, which curation may rewrite (`extract_texts`)
    generated      those of `text` that the model learns to write: curation keeps their characters
    word_lists     those of `text` whose texts are the words of one text, which curation may join to look for phrases
    single_answer  whether a text has one right answer, so that rows with one text and two answers contradict each other
    near_repeats   whether rows with nearly the same text repeat each other, that is, not if all that differs may be a
                   question, an answer or a word of it
    split_contexts whether rows with one context may be in different splits (`context_texts`)
    label          the column that holds the class; '' if there is none
    inputs         the columns that a caller of the served model sends
    outputs        what the served model returns: names with MLflow types (string, double, long; `string[]` for a list)
    pipeline       name of the transformers pipeline that serves such models
    metrics        the metrics by name; the first is the main one, on which systems are compared
    rate_factor    factor of a method's default learning rate
    works_untuned  whether the base model can do the task before it is trained
    needs_rows     whether `compute_outcome` needs the text of the rows, not only their tokens
    tunes_targets  whether `tune_targets` chooses something on the validation rows after training
    libraries      distributions beside torch and transformers whose versions decide tokens, loss or metrics
    drop_reason    why `encode` may drop a row; '' if it never does
    writes_answers whether an answer is free text, in which words of the input may come back
    """

    columns: ClassVar[tuple[str, ...]]
    forms: ClassVar[tuple[str, ...]] = ()
    text: ClassVar[tuple[str, ...]]
    generated: ClassVar[tuple[str, ...]] = ()
    word_lists: ClassVar[tuple[str, ...]] = ()
    single_answer: ClassVar[bool] = False
    near_repeats: ClassVar[bool] = True
    split_contexts: ClassVar[bool] = True
    label: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[Mapping[str, str]]
    pipeline: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    rate_factor: ClassVar[float] = 1.0
    works_untuned: ClassVar[bool] = False
    needs_rows: ClassVar[bool] = False
    tunes_targets: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()
    drop_reason: ClassVar[str] = ""
    writes_answers: ClassVar[bool] = False

    @property
    def applies_dropout(self) -> bool:
        """Whether the model's dropout is applied in training."""
        return True

    @property
    def has_neighbour_baseline(self) -> bool:
        """Whether there is a baseline of nearest training rows: whether `neighbour_predictions` is defined."""
        return type(self).neighbour_predictions is not Objective.neighbour_predictions

    @property
    def compares_answers(self) -> bool:
        """Whether two answers can be the same or not: whether `describe_answer` is defined."""
        return type(self).describe_answer is not Objective.describe_answer

    @property
    def main_metric(self) -> str:
        """The name of the metric on which systems are compared."""
        return next(iter(self.metrics))

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Those of `metrics` that `predict_batch` suffices for: they are computed on the validation rows in training.

        Not what needs generated text, predictions of the base model, or the text of the rows (`needs_rows`).
        """
        return {} if self.needs_rows else self.metrics

    @property
    def form_columns(self) -> tuple[str, ...]:
        """The columns of rows in another form, which `ingest.columns` may map: `forms`, unless an option names them."""
        return self.forms

    @property
    def prompting(self) -> Prompting | None:
        """How the task is put to models that are prompted instead of trained; None if they cannot do it."""
        return None

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert a source's row to the objective's columns; nested values are Python objects.

        The default returns the row as it is. Override it to accept other forms of the same data (alpaca for messages,
        spans for tags). Raises ValueError with the reason if the row is invalid; the row is then refused. Raises
        SkippedRow for a row that is not meant to be used.
        """
        return values

    def start_reading(self) -> RowReader:
        """A reader of one source's rows, by `normalize_row`. Override it to count or check over all rows."""
        return RowReader(self.normalize_row)

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Each row as one text for people: its text columns, one per line; null becomes ''."""
        columns = [[text or "" for text in rows.column(name).to_pylist()] for name in self.text]
        return columns[0] if len(columns) == 1 else ["\n".join(texts) for texts in zip(*columns, strict=True)]

    def identity_texts(self, rows: pa.Table) -> list[str]:
        """What tells each row from the others, as one text: on this the similarity of rows is measured."""
        return self.row_texts(rows)

    def context_texts(self, rows: pa.Table) -> list[str]:
        """What many rows may have in common without being similar, such as a system prompt; '' for none.

        Rows with different contexts are never similar.
        """
        return [""] * rows.num_rows

    def answer_keys(self, rows: pa.Table) -> list[str]:
        """The right answer of each row: rows with one text and two answers are not duplicates.

        By default the values of all columns that are not text.
        """
        names = [name for name in self.columns if name not in self.text]
        rows_of_answers = zip(*([value or "" for value in rows[name].to_pylist()] for name in names), strict=True)
        return ["\n".join(answers) for answers in rows_of_answers] if names else [""] * rows.num_rows

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The texts in one value of a `text` column; by default the value itself, as plain text."""
        return [value]

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The value with the texts that `extract_texts` returns for it replaced by `texts`, in the same order."""
        return texts[0]

    def inference_inputs(self, rows: pa.Table) -> list[dict[str, str]]:
        """The rows as a caller of the served model would send them: a dictionary of the `inputs` for each row."""
        inputs: list[dict[str, str]] = rows.select(list(self.inputs)).to_pylist()
        return inputs

    def question_inputs(self, rows: pa.Table) -> list[dict[str, str]]:
        """As `inference_inputs`, without what the answer does not depend on, such as the right one at their end."""
        return self.inference_inputs(rows)

    def normalize_input(self, name: str, value: str) -> str:
        """The value of an input in the form that the rows' columns have, which `extract_texts` takes.

        By default the value as it is: a caller sends it in that form. Raises ValueError for a value of a wrong form.
        """
        return value

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """Update annotations that point into texts (character offsets) after these texts were rewritten.

        Returns the rows `after` with updated annotations, and for each row '' or the reason to drop it: an annotated
        part is no longer in its text.
        """
        return after, [""] * after.num_rows

    def strata(self, rows: pa.Table) -> list[str]:
        """The stratum of each row: a random split gives every split its share of each. One '' for all: no strata.

        A stratum of a single row goes to the training split.
        """
        return [name or "" for name in rows[self.label].to_pylist()] if self.label else [""] * rows.num_rows

    @abstractmethod
    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """What the training rows determine about the head, JSON-able, such as `{"labels": [sorted names]}`."""

    def option_files(self) -> tuple[Path, ...]:
        """The files that options name; their content affects the tokens, so it is part of the cache key."""
        return ()

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase, targets: Targets) -> dict[str, Any]:
        """Change the base model's tokenizer in place where the objective needs it; returns the extended targets.

        Called before rows are encoded, and again, with the targets it returned, before the tokenizer is saved beside
        the trained model. A target named `..._sha256` becomes a tag of the model version.
        """
        return dict(targets)

    def list_unseen_labels(self, rows: pa.Table, targets: Targets) -> list[str]:
        """An entry for each row with labels that no training row has: these, as one text. Such rows count as errors."""
        return []

    @abstractmethod
    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """Encode rows: `id`, `input_ids` (list<int32>), `lost` (int32, tokens cut off), and what the loss needs.

        One row may become several. With `labelled=False` the rows have only the `inputs`, as in the served model.
        """

    def locate_in_source(self, tokens: pa.Table, texts: Sequence[Mapping[str, Sequence[Rewritten]]]) -> pa.Table:
        """Encoded inputs with offsets into the texts that a caller sent, not into those that the model read.

        `texts` has for each row the texts of its inputs. By default nothing changes: no answer has such offsets.
        """
        return tokens

    def pack_rows(self, tokens: pa.Table, max_length: int) -> Iterator[pa.Table] | None:
        """Encoded training rows packed into rows of at most `max_length` tokens, in batches.

        Returns None if rows are trained on one by one. `tokens` is memory-mapped: do not copy all of it.
        """
        return None

    @abstractmethod
    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """A padded batch of encoded rows, passed as columns: input_ids, attention_mask [rows, tokens], labels.

        Outside of training `rows` also has the column `position`: each row's index among all rows that are predicted.
        """

    @abstractmethod
    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in the directory `base`, float32, with this objective's head for `targets`.

        `config.pad_token_id` is the id to collate with. A new head's weights are random: seed torch first.
        """

    def check_model(self, model: Any, where: str) -> None:  # noqa: B027 - most objectives can train any model
        """Raise ModelError, about `where`, if the prepared model cannot be trained with this objective's rows."""

    @abstractmethod
    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed loss of a batch, and the number of terms in the sum (rows, or unmasked tokens)."""

    @abstractmethod
    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """The model's predictions for the rows of a batch (`Predictions`), on the CPU."""

    @property
    def needs_reference_model(self) -> bool:
        """Whether the loss needs the base model's predictions, made before training (`reference_columns`)."""
        return False

    def reference_columns(self, predictions: Predictions) -> dict[str, Sequence[Any]]:
        """Columns to add to encoded rows, by name, from the base model's predictions for them.

        Training rows get them if `needs_reference_model`, test rows if `works_untuned`.
        """
        return {}

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """The predictions with generated token ids decoded to text; unchanged where nothing is generated."""
        return predictions

    def tune_targets(self, tokens: pa.Table, predictions: Predictions, targets: Targets) -> Targets:
        """The targets with values tuned on the validation rows `tokens` and a system's predictions, such as thresholds.

        If `tunes_targets`, every compared system has targets of its own; the model's are served with it.
        `compute_outcome` and `build_answers` must also work with targets that were not tuned.
        """
        return targets

    @abstractmethod
    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """The outcome, row by row, of a system with these predictions for the encoded rows `tokens`.

        `rows`, in the order of the outcome, is passed if `needs_rows`.
        """

    @abstractmethod
    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Each of `metrics` [n] from `sums` [k, n], n columns of summed statistics; nan where undefined."""

    def count_rows(self, sums: np.ndarray, targets: Targets) -> dict[str, int]:
        """The numbers of rows of the metrics that are about some rows alone, from `sums` [k]; empty by default."""
        return {}

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """The metrics [n] of each class or type, `support` being its number of occurrences; empty by default."""
        return {}

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """Predictions of simple systems, by name, for the encoded rows `test`; `rows` has their texts."""
        return {}

    def neighbour_predictions(
        self, weights: np.ndarray, neighbours: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """Predictions from each row's nearest training rows: their indices `neighbours` and `weights` [rows, k].

        Without an override there is no such baseline.
        """
        return {}

    def class_labels(self, tokens: pa.Table, targets: Targets) -> np.ndarray | None:
        """The encoded rows' classes: numbers [rows], or 0 and 1 for each label [rows, labels]; None if it has none.

        With classes there are two more baselines (`hone.evaluation.judging.classifiers`), whose scores have one column
        for each of the targets' labels.
        """
        return None

    @abstractmethod
    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """What the served model returns to the caller for each of `rows`: a dictionary with the `outputs`.

        `rows` are those that the caller sent: an answer's offsets and copies refer to them.
        """

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """What two answers of `build_answers` are compared by, as text for people: the class, or the text.

        Without an override answers are not compared: numbers and vectors differ a little for every other input.
        """
        raise NotImplementedError
