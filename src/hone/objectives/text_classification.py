"""Text classification: one label for a text, such as sentiment, intent or topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import ConfigError, DataError
from hone.objectives.base import UNSEEN, Metric, Objective, Outcome, Predictions, RowReader, Targets
from hone.objectives.shared.annotations import has_marks
from hone.objectives.shared.heads import load_with_head, text_logits
from hone.objectives.shared.label_account import LabelReader, check_not_joined
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.statistics import metrics_by_group, safe_ratio
from hone.objectives.shared.tokenizer import encode_rows, list_truncated
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch
    from hone.objectives.prompting.prompting import Prompting

IGNORED = -100  # the label of a row that has no loss


@dataclass(frozen=True)
class TextClassification(Objective):
    """Predict one label for a text."""

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    text: ClassVar[tuple[str, ...]] = ("text",)
    single_answer: ClassVar[bool] = True
    label: ClassVar[str] = "label"
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"label": "string", "score": "double", "truncated": "boolean"}
    pipeline: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": Metric("Accuracy"), "macro_f1": Metric("Macro-F1")}

    label_smoothing: float = option(
        0.0, "Share of the target probability that is spread over all labels.", learning=True, ge=0, lt=1
    )

    class_weights: Literal["none", "balanced"] | dict[str, float] = option(
        "none",
        "Weight of a label's rows in the loss: balanced (each label counts the same), or numbers by label (else 1)."
        " They are scaled to a mean of 1 over the training rows.",
        learning=True,
    )
    focal: float = option(
        0.0,
        "Focal loss: exponent by which rows that are predicted well count less; 0 for cross entropy.",
        learning=True,
        ge=0,
    )

    combined_labels: bool = option(False, "Accept labels that combine others, such as 2,5,9, as classes of their own.")

    @property
    def prompting(self) -> Prompting:
        """The answer of a prompted model is a label."""
        from hone.objectives.prompting import LabelPrompting

        return LabelPrompting(self)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row, its label without the spaces around it.

        Raises ValueError if the label is a list or empty.
        """
        if has_marks(values.get("label")):
            raise ValueError("label is a list of spans, which are for token-classification")
        if isinstance(values.get("label"), (list, tuple)):
            raise ValueError(
                "label is a list; this objective takes one label for a text (multi-label-classification takes several)"
            )
        if not isinstance(values.get("label"), str):
            return values
        label = values["label"].strip()
        if not label:
            raise ValueError("label is empty")
        return {**values, "label": label}

    def start_reading(self) -> RowReader:
        """A reader that reports labels which differ by spaces or case alone, and refuses joined ones."""
        return ClassReader(self)

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`{"labels": [names, sorted], "shares": [of the training rows]}`; raises DataError for fewer than two."""
        counts = Counter(train["label"].drop_null().to_pylist())
        labels = sorted(counts)
        if len(labels) < 2:
            description = f"only the label {labels[0]}" if labels else "no label"
            raise DataError(
                f"has {description}; classification needs two or more",
                where="the training split, column label",
                fix="Check the column that ingest.columns maps to label, and the curation steps that drop rows.",
            )
        return {"labels": labels, "shares": [counts[label] / counts.total() for label in labels]}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` (list<int32>), `label` (int64, index in the targets), `lost` (int32, tokens cut off).

        The index of a label that is not in the targets is the number of these. Raises DataError for a null text.
        """
        label = {"label": _label_indices(rows, targets["labels"])} if labelled else {}
        return encode_rows(rows, tokenizer, max_length, targets, **label)

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, longest] and labels [rows], all int64; padded on the right with `pad_id`."""
        import torch

        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        if "label" in rows:
            batch["labels"] = torch.tensor([int(label) for label in rows["label"]])
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a classification head of one output for each label.

        With `class_weights` its buffer `class_weight` [labels] has them. Raises ModelError if the weights do not fit
        the architecture or it has no such head, ConfigError if a label that has a weight has no training row.
        """
        import torch

        model = load_with_head("AutoModelForSequenceClassification", base, labels=targets["labels"])
        if self.class_weights != "none":
            weights = torch.tensor(self._weigh_labels(targets["labels"], targets["shares"]), dtype=torch.float32)
            model.register_buffer("class_weight", weights, persistent=False)
        return model

    def _weigh_labels(self, labels: Sequence[str], shares: Sequence[float]) -> list[float]:
        """The labels' weights, whose mean over the training rows is 1."""
        if isinstance(self.class_weights, str):
            weights = [1 / share for share in shares]
        else:
            unknown = sorted(set(self.class_weights) - set(labels))
            if unknown:
                raise ConfigError(
                    f"no training row has the label {unknown[0]}",
                    where="objective.class_weights",
                    fix=f"There are {', '.join(labels[:10])}{' ...' if len(labels) > 10 else ''}.",
                )
            weights = [self.class_weights.get(label, 1.0) for label in labels]
        mean = sum(share * weight for share, weight in zip(shares, weights, strict=True))
        if not mean > 0 or min(weights) < 0:
            raise ConfigError("weights are 0 or more, and not all 0", where="objective.class_weights")
        return [weight / mean for weight in weights]

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of a batch, float32, and its number of rows with a known label.

        With `focal`, that of each row times (1 - p) ** focal, p being the probability of its label (Lin et al., arXiv
        1708.02002).
        """
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        logits = text_logits(model, batch)
        labels = labels.where(labels < logits.shape[1], IGNORED)  # a validation row's label that no training row has
        losses = cross_entropy(
            logits,
            labels,
            weight=model.class_weight if self.class_weights != "none" else None,
            reduction="none",
            label_smoothing=self.label_smoothing,
            ignore_index=IGNORED,
        )
        if self.focal:
            right = logits.softmax(-1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
            losses = losses * (1 - right) ** self.focal
        return losses.sum(), int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: class probabilities [rows, labels], float32."""
        return {"scores": text_logits(model, batch).softmax(-1).detach().cpu().numpy()}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: for each label true positives, rows that have it, rows predicted to.

        The last label collects those that no training row has; they are never predicted.
        """
        import numpy as np

        labels, scores = np.array([*targets["labels"], UNSEEN], object), np.asarray(predictions["scores"])
        right, predicted = tokens["label"].to_numpy(), scores.argmax(1)
        one_hot = np.eye(len(labels))
        confidences = scores.max(1).astype(np.float64)
        return Outcome(
            statistics=np.concatenate(
                [one_hot[right] * (right == predicted)[:, None], one_hot[right], one_hot[predicted]], axis=1
            ),
            predictions=labels[predicted].tolist(),
            references=labels[right].tolist(),
            errors=np.where(right == predicted, 0.0, confidences),
            confidences=confidences,
            classes=np.stack([right, predicted]),
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`accuracy`, and `macro_f1`: the mean F1 of labels that occur or were predicted, like scikit-learn's."""
        import numpy as np

        right, support, predicted = np.split(sums, 3)
        f1 = safe_ratio(2 * right, support + predicted)
        defined = np.isfinite(f1)
        return {
            "accuracy": safe_ratio(right.sum(0), support.sum(0)),
            "macro_f1": safe_ratio(np.where(defined, f1, 0).sum(0), defined.sum(0)),
        }

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """`precision`, `recall`, `f1` and `support` (rows) of each label."""
        import numpy as np

        return metrics_by_group(targets["labels"], *np.split(sums, 3))

    def list_unseen_labels(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The label of each row that has none of the targets'."""
        labels = set(targets["labels"])
        return [label for label in rows["label"].to_pylist() if label not in labels]

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`majority`: the labels' shares of the training rows as scores; the most frequent label always wins."""
        import numpy as np

        labels = train["label"].to_numpy()
        shares = np.bincount(labels, minlength=len(targets["labels"])) / len(labels)
        return {"majority": {"scores": np.broadcast_to(shares.astype(np.float32), (len(test), len(shares)))}}

    def neighbour_predictions(
        self, weights: np.ndarray, neighbours: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """Each label's share of the neighbours' weights."""
        import numpy as np

        labels = train["label"].to_numpy()[neighbours]
        scores = np.zeros((len(neighbours), len(targets["labels"])))
        np.add.at(scores, (np.arange(len(neighbours))[:, None], labels), weights)
        return {"scores": (scores / scores.sum(1, keepdims=True)).astype(np.float32)}

    def class_labels(self, tokens: pa.Table, targets: Targets) -> np.ndarray:
        """The label of each row, as its index in the targets."""
        labels: np.ndarray = tokens["label"].to_numpy()
        return labels

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The most likely `label`, its probability `score`, and `scores` of all labels.

        `truncated`: whether the text was longer than the model takes, so that its end was not read.
        """
        answers = []
        for scores, truncated in zip(predictions["scores"], list_truncated(tokens), strict=True):
            best = int(scores.argmax())
            score_by_label = {label: float(score) for label, score in zip(targets["labels"], scores, strict=True)}
            answer = {"label": targets["labels"][best], "score": float(scores[best]), "truncated": truncated}
            answers.append({**answer, "scores": score_by_label})
        return answers

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The label."""
        return str(answer["label"])


class ClassReader(LabelReader):
    """Counts the labels of rows, one each."""

    def __init__(self, objective: TextClassification) -> None:
        super().__init__(objective.normalize_row, _list_label)
        self._objective = objective

    def finish(self) -> Mapping[str, int]:
        """The notes. Raises DataError if labels are combinations of others, unless `combined_labels` accepts them."""
        if not self._objective.combined_labels:
            check_not_joined(list(self.labels))
        return super().finish()


def _list_label(values: Mapping[str, Any]) -> list[str]:
    return [values["label"]] if isinstance(values.get("label"), str) else []


def _label_indices(rows: pa.Table, labels: Sequence[str]) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = rows["label"]
    if column.null_count:
        first = rows["id"].filter(column.is_null())[0].as_py()
        raise DataError("a row has no label", where=f"row {first}", fix="Drop such rows.")
    return pc.index_in(column, value_set=pa.array(labels, column.type)).fill_null(len(labels)).cast(pa.int64())
