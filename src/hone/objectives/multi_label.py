"""Multi-label classification: several labels for a text, or none, such as topics, emotions or policy violations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import DataError
from hone.objectives.base import UNSEEN, Metric, Objective, Outcome, Predictions, RowReader, Targets
from hone.objectives.shared.annotations import has_marks
from hone.objectives.shared.heads import load_with_head, text_logits
from hone.objectives.shared.label_account import LabelReader
from hone.objectives.shared.label_forms import has_label, parse_label_names
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

# A label with fewer validation rows keeps the default threshold. Simulated, with calibrated probabilities of a label
# that 5% of rows have: F1 is 63% at 0.5; tuned on 2 of its rows 58%, in the worst tenth 45%; on 5 rows 61%,
# on 20 rows 64%.
MIN_ROWS = 5
NONE = "(none)"


@dataclass(frozen=True)
class MultiLabelClassification(Objective):
    """Predict any number of labels for a text."""

    columns: ClassVar[tuple[str, ...]] = ("text", "labels")
    text: ClassVar[tuple[str, ...]] = ("text",)
    single_answer: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"labels": "string[]", "scores": "double[]", "truncated": "boolean"}
    pipeline: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "micro_f1": Metric("Micro-F1"),
        "macro_f1": Metric("Macro-F1"),
        "subset_accuracy": Metric("Subset accuracy"),
        "hamming_loss": Metric("Hamming loss", lower=True),
    }
    tunes_targets: ClassVar[bool] = True

    separator: str = option("", "Separator of labels that are written as one text, such as ; in joy;love.")
    label_columns: tuple[str, ...] = option(
        (), "Columns of 0 and 1, one for each label and named like it, instead of the column labels."
    )
    labels: tuple[str, ...] = option((), "The labels to use; other labels are ignored. Empty uses all.")
    positive_weight: Literal["none", "balanced"] = option(
        "none",
        "balanced: rows with a label have the same total weight in the loss as rows without it.",
        learning=True,
    )
    thresholds: Literal["tuned", "fixed"] = option(
        "tuned",
        "tuned: choose each label's threshold for the best F1 on the validation split.",
        learning=True,
    )
    threshold: float = option(
        0.5,
        "Minimum probability for a label to be predicted, if thresholds are fixed or the label is too rare to tune.",
        learning=True,
        gt=0,
        lt=1,
    )

    @property
    def form_columns(self) -> tuple[str, ...]:
        """The columns of 0 and 1."""
        return self.label_columns

    @property
    def prompting(self) -> Prompting:
        """The answer of a prompted model is a list of labels."""
        from hone.objectives.prompting import LabelSetPrompting

        return LabelSetPrompting(self)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with `labels` as a sorted list of names, from a list, its text, or columns of 0 and 1.

        No label is [] or an empty text. Raises ValueError for labels in any other form; null is refused as unknown.
        """
        if self.label_columns:
            names = [name for name in self.label_columns if has_label(values, name)]
        elif values.get("labels") is None:
            return values
        elif has_marks(values["labels"]):
            raise ValueError("labels is a list of spans, which are for token-classification")
        else:
            names = parse_label_names(values["labels"], self.separator)
        return {**values, "labels": sorted({name for name in names if not self.labels or name in self.labels})}

    def start_reading(self) -> RowReader:
        """A reader that reports labels which differ by spaces or case alone."""
        return LabelReader(self.normalize_row, _list_names)

    def strata(self, rows: pa.Table) -> list[str]:
        """Each row's rarest label, '' for none: rare labels are split evenly, after Sechidis et al. 2011."""
        label_lists = _parse_labels(rows)
        counts = Counter(name for names in label_lists for name in names)
        return [min(names, key=lambda name: (counts[name], name), default="") for names in label_lists]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`{"labels": [names, sorted], "shares": [of the training rows]}`; raises DataError if no row has a label."""
        counts = Counter(name for names in _parse_labels(train) for name in names)
        if not counts:
            raise DataError(
                "no row has a label",
                where="the training split, column labels",
                fix="Check the column that ingest.columns maps to labels, and objective.labels.",
            )
        labels = sorted(counts)
        return {"labels": labels, "shares": [counts[name] / train.num_rows for name in labels]}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` (list<int32>), `labels` (list<int8>, 0 or 1 for each of the targets'), `lost` (int32).

        `unseen` (bool) marks rows that have a label which is not in the targets. Raises DataError for a null text.
        """
        import pyarrow as pa

        if not labelled:
            return encode_rows(rows, tokenizer, max_length, targets)
        labels = set(targets["labels"])
        unseen = pa.array([not labels.issuperset(names) for names in _parse_labels(rows)], pa.bool_())
        return encode_rows(
            rows, tokenizer, max_length, targets, labels=_encode_labels(rows, targets["labels"]), unseen=unseen
        )

    def list_unseen_labels(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The labels that are not in the targets, of each row that has any."""
        labels = set(targets["labels"])
        unseen_by_row = ([name for name in names if name not in labels] for names in _parse_labels(rows))
        return [", ".join(unseen) for unseen in unseen_by_row if unseen]

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, longest], int64, labels [rows, labels], float32; padded with `pad_id`."""
        import numpy as np
        import torch

        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        if "labels" in rows:
            batch["labels"] = torch.from_numpy(np.stack([np.asarray(row, np.float32) for row in rows["labels"]]))
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head of one output for each label, like transformers' multi-label models.

        If positives are balanced, its buffer `positive_weight` [labels] is the number of rows without each label
        divided by the number of rows with it.
        """
        import torch

        auto, problem = "AutoModelForSequenceClassification", "multi_label_classification"
        model = load_with_head(auto, base, labels=targets["labels"], problem_type=problem)
        if self.positive_weight == "balanced":
            shares = torch.tensor(targets["shares"], dtype=torch.float32)
            model.register_buffer("positive_weight", (1 - shares) / shares, persistent=False)
        return model

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The binary cross entropy, float32, summed over rows and labels, and the number of these pairs."""
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        labels = batch["labels"]
        weight = model.positive_weight if self.positive_weight == "balanced" else None
        return cross_entropy(text_logits(model, batch), labels, pos_weight=weight, reduction="sum"), labels.numel()

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: the probability of each label [rows, labels], float32."""
        return {"scores": text_logits(model, batch).sigmoid().detach().cpu().numpy()}

    def tune_targets(self, tokens: pa.Table, predictions: Predictions, targets: Targets) -> Targets:
        """The targets with `thresholds`: for each label the one with the best F1 on `tokens` (`find_threshold`)."""
        import numpy as np

        if self.thresholds == "fixed":
            return targets
        has_label, scores = _label_matrix(tokens), np.asarray(predictions["scores"], np.float64)
        thresholds = [find_threshold(has_label[:, i], scores[:, i], self.threshold) for i in range(has_label.shape[1])]
        return {**targets, "thresholds": thresholds}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: for each label true positives, rows that have it, rows predicted to; then exact match, and 1.

        The last label collects those that no training row has; they are never predicted.
        """
        import numpy as np

        scores = np.asarray(predictions["scores"], np.float64)
        predicted = np.pad(scores >= self._thresholds(targets), ((0, 0), (0, 1)))
        scores = np.pad(scores, ((0, 0), (0, 1)))
        has_label = np.concatenate([_label_matrix(tokens), tokens["unseen"].to_numpy()[:, None]], axis=1)
        wrong = has_label != predicted
        exact = np.stack([~wrong.any(1), np.ones(len(wrong), bool)], axis=1)
        return Outcome(
            statistics=np.concatenate([has_label & predicted, has_label, predicted, exact], axis=1, dtype=np.float64),
            predictions=_join_labels(predicted, targets["labels"]),
            references=_join_labels(has_label, [*targets["labels"], UNSEEN]),
            # Each wrong label counts 1, and how far its probability is from the right one.
            errors=(wrong * (1 + np.abs(scores - has_label))).sum(1),
            label_sets=np.stack([has_label, predicted]),
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`micro_f1` over all labels of all rows; `macro_f1`, the mean F1 of the labels that occur or were predicted.

        `subset_accuracy`: share of rows with all labels right. `hamming_loss`: share of wrong row-label pairs.
        """
        import numpy as np

        right, support, predicted = np.split(sums[:-2], 3)
        f1 = safe_ratio(2 * right, support + predicted)
        defined = np.isfinite(f1)
        return {
            "micro_f1": safe_ratio(2 * right.sum(0), support.sum(0) + predicted.sum(0)),
            "macro_f1": safe_ratio(np.where(defined, f1, 0).sum(0), defined.sum(0)),
            "subset_accuracy": safe_ratio(sums[-2], sums[-1]),
            "hamming_loss": safe_ratio((support + predicted - 2 * right).sum(0), (len(right) - 1) * sums[-1]),
        }

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """`precision`, `recall`, `f1` and `support` (rows) of each label."""
        import numpy as np

        return metrics_by_group(targets["labels"], *np.split(sums[:-2], 3))

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`majority_of_each_label`: labels of most training rows; `most_frequent_set`: their most common set."""
        import numpy as np

        has_label = _label_matrix(train)
        sets, sizes = np.unique(has_label, axis=0, return_counts=True)
        constant = {"majority_of_each_label": has_label.mean(0) > 0.5, "most_frequent_set": sets[sizes.argmax()]}
        shape = len(test), has_label.shape[1]
        return {
            name: {"scores": np.broadcast_to(labels.astype(np.float32), shape)} for name, labels in constant.items()
        }

    def neighbour_predictions(
        self, weights: np.ndarray, neighbours: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """Each label's share of the neighbours' weights."""
        import numpy as np

        scores = np.einsum("rk,rkl->rl", weights, _label_matrix(train)[neighbours].astype(np.float64))
        return {"scores": (scores / weights.sum(1, keepdims=True)).astype(np.float32)}

    def class_labels(self, tokens: pa.Table, targets: Targets) -> np.ndarray:
        """Which of the targets' labels each row has."""
        return _label_matrix(tokens)

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The predicted `labels`, most likely first, their probabilities `scores`, and `all_scores` of all labels.

        `truncated`: whether the text was longer than the model takes, so that its end was not read.
        """
        import numpy as np

        thresholds, answers = self._thresholds(targets), []
        for scores, truncated in zip(predictions["scores"], list_truncated(tokens), strict=True):
            chosen = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= thresholds[i]]
            score_by_label = {label: float(score) for label, score in zip(targets["labels"], scores, strict=True)}
            labels = [targets["labels"][i] for i in chosen]
            answer = {"labels": labels, "scores": [score_by_label[label] for label in labels], "truncated": truncated}
            answers.append({**answer, "all_scores": score_by_label})
        return answers

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The labels in the order of their names."""
        return ", ".join(sorted(answer["labels"])) or NONE

    def _thresholds(self, targets: Targets) -> np.ndarray:
        """Thresholds [labels], float64: the tuned ones, or the default."""
        import numpy as np

        return np.array(targets.get("thresholds", [self.threshold] * len(targets["labels"])))


def find_threshold(has_label: np.ndarray, scores: np.ndarray, default: float) -> float:
    """The minimum score at which a label is predicted, for the best F1 on rows that have it or not (`has_label`, bool).

    It is half way between the two neighbouring scores; among equally good ones the one closest to `default` is chosen.
    Returns `default` if fewer than MIN_ROWS rows have the label.
    """
    import numpy as np

    if has_label.sum() < MIN_ROWS:
        return default
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Rows with equal scores are on the same side of a threshold.
    ends = np.flatnonzero(np.diff(ranked, append=-np.inf))
    true_positives = np.cumsum(has_label[order])[ends]
    f1 = 2 * true_positives / (ends + 1 + has_label.sum())
    next_lower = np.append(ranked, 0.0)[ends + 1]
    candidates = (ranked[ends] + next_lower) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)  # equal up to rounding
    return float(candidates[best[np.abs(candidates[best] - default).argmin()]])


def _list_names(values: Mapping[str, Any]) -> Sequence[Any]:
    """The labels in a row that has them as a list."""
    return values["labels"] if isinstance(values.get("labels"), (list, tuple)) else ()


def _parse_labels(rows: pa.Table) -> list[list[str]]:
    return [json.loads(text) for text in rows["labels"].to_pylist()]


def _encode_labels(rows: pa.Table, labels: Sequence[str]) -> pa.ListArray:
    """0 or 1 for each row and each of `labels`."""
    import numpy as np
    import pyarrow as pa

    index_by_name = {name: index for index, name in enumerate(labels)}
    marked = np.zeros((len(rows), len(labels)), np.int8)
    for row, names in enumerate(_parse_labels(rows)):
        marked[row, [index_by_name[name] for name in names if name in index_by_name]] = 1
    ends = np.arange(len(rows) + 1, dtype=np.int32) * len(labels)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(marked.reshape(-1)))


def _label_matrix(tokens: pa.Table) -> np.ndarray:
    """The labels of each encoded row: bool [rows, labels]."""
    import pyarrow.compute as pc

    flat: np.ndarray = pc.list_flatten(tokens["labels"]).to_numpy()
    return flat.reshape(len(tokens), -1).astype(bool)


def _join_labels(marked: Iterable[np.ndarray], labels: Sequence[str]) -> list[str]:
    return [", ".join(labels[i] for i in row.nonzero()[0].tolist()) or NONE for row in marked]
