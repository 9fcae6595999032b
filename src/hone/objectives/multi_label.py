"""Several labels for a text, or none: topics, emotions, policy violations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.heads import load_with_head, text_logits
from hone.objectives.shared.label_forms import has_label, parse_label_names
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.statistics import metrics_by_group, safe_ratio
from hone.objectives.shared.tokenizer import encode_rows
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch

# A label with fewer rows on the validation split keeps the threshold it has. Simulated, with calibrated probabilities
# of a label that 5% of rows have: F1 is 63% at 0.5; tuned on 2 of its rows 58%, in the worst tenth 45%; on 5 rows 61%,
# on 20 rows 64%.
LEAST_ROWS = 5
NONE = "(none)"


@dataclass(frozen=True)
class MultiLabelClassification(Objective):
    """Several labels for a text, or none."""

    columns: ClassVar[tuple[str, ...]] = ("text", "labels")
    text: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"labels": "string[]", "scores": "double[]"}
    pipeline: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "micro_f1": Metric("Micro-F1"),
        "macro_f1": Metric("Macro-F1"),
        "subset_accuracy": Metric("Subset accuracy"),
        "hamming_loss": Metric("Hamming loss", lower_is_better=True),
    }
    tunes_targets: ClassVar[bool] = True

    separator: str = option("", "What stands between labels written as one text, such as ; in joy;love.")
    label_columns: tuple[str, ...] = option(
        (), "Columns of 0 and 1, one for each label, which is called like it, in place of the column labels."
    )
    labels: tuple[str, ...] = option((), "The labels that count, others are left out; all there are where empty.")
    positive_weight: Literal["none", "balanced"] = option(
        "none",
        "balanced: in the loss a label's rows together weigh as much as those without it.",
        learning=True,
    )
    thresholds: Literal["tuned", "fixed"] = option(
        "tuned",
        "tuned: for each label the probability from which on it is given is the best for F1 on the validation split.",
        learning=True,
    )
    threshold: float = option(
        0.5, "The probability for all labels where fixed, and for those too rare to tune.", learning=True, gt=0, lt=1
    )

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with `labels` a sorted list of names, from a list, its text, or columns of 0 and 1.

        Raises ValueError for labels in no such form. None at all is [] or an empty text; null is not known: refused.
        """
        if self.label_columns:
            found = [name for name in self.label_columns if has_label(values, name)]
        elif values.get("labels") is None:
            return values
        else:
            found = parse_label_names(values["labels"], self.separator)
        return {**values, "labels": sorted({name for name in found if not self.labels or name in self.labels})}

    def strata(self, rows: pa.Table) -> list[str]:
        """Each row's rarest label, '' for none: rare ones are parted first, as Sechidis et al. 2011 do."""
        sets = _sets(rows)
        sizes = Counter(name for names in sets for name in names)
        return [min(names, key=lambda name: (sizes[name], name), default="") for names in sets]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`{"labels": [names, sorted], "shares": [of the training rows]}`; raises DataError where none has a label."""
        sizes = Counter(name for names in _sets(train) for name in names)
        if not sizes:
            raise DataError(
                "no row has a label",
                where="the training split, column labels",
                fix="Check the column that ingest.columns maps to labels, and objective.labels.",
            )
        labels = sorted(sizes)
        return {"labels": labels, "shares": [sizes[name] / train.num_rows for name in labels]}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` (list<int32>), `labels` (list<int8>, 0 or 1 for each of the targets'), `lost` (int32).

        Raises DataError for a text that is null and for a label that the targets do not have.
        """
        labels = {"labels": _marked(rows, targets["labels"])} if labelled else {}
        return encode_rows(rows, tokenizer, max_length, **labels)

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, longest], int64, labels [rows, labels], float32; padded with `pad_id`."""
        import numpy as np
        import torch

        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        if "labels" in rows:
            batch["labels"] = torch.from_numpy(np.stack([np.asarray(row, np.float32) for row in rows["labels"]]))
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head of one output for each label, as transformers' multi-label models.

        Where positives are balanced, `positive_weight` [labels] beside it holds rows without a label for each with it.
        """
        import torch

        auto, problem = "AutoModelForSequenceClassification", "multi_label_classification"
        model = load_with_head(auto, base, labels=targets["labels"], problem_type=problem)
        if self.positive_weight == "balanced":
            shares = torch.tensor(targets["shares"], dtype=torch.float32)
            model.register_buffer("positive_weight", (1 - shares) / shares, persistent=False)
        return model

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed binary cross entropy of each row and label, float32, and how many of these there are."""
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        labels = batch["labels"]
        weight = model.positive_weight if self.positive_weight == "balanced" else None
        return cross_entropy(text_logits(model, batch), labels, pos_weight=weight, reduction="sum"), labels.numel()

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: the probability of each label [rows, labels], float32."""
        return {"scores": text_logits(model, batch).sigmoid().detach().cpu().numpy()}

    def tune_targets(self, tokens: pa.Table, raw: Predictions, targets: Targets) -> Targets:
        """The targets with `thresholds`, for each label the one of the best F1 on `tokens` (`best_threshold`)."""
        import numpy as np

        if self.thresholds == "fixed":
            return targets
        marked, scores = _matrix(tokens), np.asarray(raw["scores"], np.float64)
        found = [best_threshold(marked[:, i], scores[:, i], self.threshold) for i in range(marked.shape[1])]
        return {**targets, "thresholds": found}

    def compute_outcome(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics are, for each label: rightly given, there, given; then whether all are right, and 1."""
        import numpy as np

        scores = np.asarray(raw["scores"], np.float64)
        there, said = _matrix(tokens), scores >= self._thresholds(targets)
        wrong = there != said
        whole = np.stack([~wrong.any(1), np.ones(len(wrong), bool)], axis=1)
        return Outcome(
            statistics=np.concatenate([there & said, there, said, whole], axis=1, dtype=np.float64),
            predictions=_told(said, targets["labels"]),
            references=_told(there, targets["labels"]),
            errors=(wrong * (1 + np.abs(scores - there))).sum(1),
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`micro_f1` over all labels of all rows; `macro_f1`, the mean F1 of the labels that are there or were given;
        `subset_accuracy`, the share of rows with all labels right; `hamming_loss`, the share of wrong labels."""
        import numpy as np

        right, there, given = np.split(sums[:-2], 3)
        f1 = safe_ratio(2 * right, there + given)
        known = np.isfinite(f1)
        return {
            "micro_f1": safe_ratio(2 * right.sum(0), there.sum(0) + given.sum(0)),
            "macro_f1": safe_ratio(np.where(known, f1, 0).sum(0), known.sum(0)),
            "subset_accuracy": safe_ratio(sums[-2], sums[-1]),
            "hamming_loss": safe_ratio((there + given - 2 * right).sum(0), len(right) * sums[-1]),
        }

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """By label `precision`, `recall`, `f1` and `support`, its rows."""
        import numpy as np

        return metrics_by_group(targets["labels"], *np.split(sums[:-2], 3))

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`majority_of_each_label`: given where most training rows have it; `most_frequent_set`: their commonest."""
        import numpy as np

        marked = _matrix(train)
        sets, sizes = np.unique(marked, axis=0, return_counts=True)
        said = {"majority_of_each_label": marked.mean(0) > 0.5, "most_frequent_set": sets[sizes.argmax()]}
        shape = len(test), marked.shape[1]
        return {name: {"scores": np.broadcast_to(of.astype(np.float32), shape)} for name, of in said.items()}

    def neighbour_predictions(
        self, weights: np.ndarray, at: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """The share of the weights that is each label's."""
        import numpy as np

        scores = np.einsum("rk,rkl->rl", weights, _matrix(train)[at].astype(np.float64))
        return {"scores": (scores / weights.sum(1, keepdims=True)).astype(np.float32)}

    def build_answers(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `labels` given, likeliest first, their probabilities `scores`, and `all_scores`, those of all labels."""
        import numpy as np

        thresholds, found = self._thresholds(targets), []
        for scores in raw["scores"]:
            given = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= thresholds[i]]
            each = {label: float(score) for label, score in zip(targets["labels"], scores, strict=True)}
            labels = [targets["labels"][i] for i in given]
            found.append({"labels": labels, "scores": [each[label] for label in labels], "all_scores": each})
        return found

    def _thresholds(self, targets: Targets) -> np.ndarray:
        """[labels], float64: those chosen on the validation rows, where they were."""
        import numpy as np

        return np.array(targets.get("thresholds", [self.threshold] * len(targets["labels"])))


def best_threshold(there: np.ndarray, scores: np.ndarray, default: float) -> float:
    """The score from which on a label is given, for the best F1 on rows that have it or not (`there`, bool).

    Half way between the two scores that it parts; of several as good, the one next to `default`, which is also kept
    where fewer than LEAST_ROWS rows have the label.
    """
    import numpy as np

    if there.sum() < LEAST_ROWS:
        return default
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.diff(ranked, append=-np.inf))  # rows of one score are given the label together
    right = np.cumsum(there[order])[ends]
    f1 = 2 * right / (ends + 1 + there.sum())
    below = np.append(ranked, 0.0)[ends + 1]
    halves = (ranked[ends] + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(halves[best[np.abs(halves[best] - default).argmin()]])


def _sets(rows: pa.Table) -> list[list[str]]:
    return [json.loads(text) for text in rows["labels"].to_pylist()]


def _marked(rows: pa.Table, labels: Sequence[str]) -> pa.ListArray:
    """For each row 0 or 1 for each of `labels`."""
    import numpy as np
    import pyarrow as pa

    places = {name: place for place, name in enumerate(labels)}
    marked = np.zeros((len(rows), len(labels)), np.int8)
    for row, names in enumerate(_sets(rows)):
        unknown = [name for name in names if name not in places]
        if unknown:
            raise DataError(
                f"no training row has the label {', '.join(unknown[:5])}",
                where=f"row {rows['id'][row].as_py()}",
                fix="Add training rows with it, or name the labels that count in objective.labels.",
            )
        marked[row, [places[name] for name in names]] = 1
    ends = np.arange(len(rows) + 1, dtype=np.int32) * len(labels)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(marked.reshape(-1)))


def _matrix(tokens: pa.Table) -> np.ndarray:
    """Which labels each encoded row has: bool [rows, labels]."""
    import pyarrow.compute as pc

    flat: np.ndarray = pc.list_flatten(tokens["labels"]).to_numpy()
    return flat.reshape(len(tokens), -1).astype(bool)


def _told(marked: Iterable[np.ndarray], labels: Sequence[str]) -> list[str]:
    return [", ".join(labels[i] for i in row.nonzero()[0].tolist()) or NONE for row in marked]
