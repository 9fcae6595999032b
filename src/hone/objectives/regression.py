"""Regression: predict a number from a text, such as a rating, a price or a degree of similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.heads import load_with_head, text_logits
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.statistics import safe_ratio
from hone.objectives.shared.tokenizer import encode_rows, list_truncated
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch
    from hone.objectives.prompting.prompting import Prompting

# A random split is stratified by up to RANGES quantile ranges of the label, each with at least ROWS_OF_RANGE rows.
RANGES, ROWS_OF_RANGE = 10, 20


@dataclass(frozen=True)
class Regression(Objective):
    """Predict a number from a text.

    The model learns standardized numbers: minus the mean of the training rows, divided by their standard deviation.
    `scores` are standardized too.
    """

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    text: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"value": "double", "truncated": "boolean"}
    pipeline: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "r2": Metric("R²", share=False),
        "pearson": Metric("Pearson correlation", share=False),
        "spearman": Metric("Spearman correlation", share=False),
        "mae": Metric("Mean absolute error", lower=True, share=False),
        "rmse": Metric("Root mean squared error", lower=True, share=False),
    }

    error: Literal["mse", "huber", "mae"] = option(
        "mse",
        "Loss of an error: mse (squared), mae (absolute), or huber, which is less sensitive to outliers.",
        learning=True,
    )

    @property
    def prompting(self) -> Prompting:
        """The answer of a prompted model is a number."""
        from hone.objectives.prompting import NumberPrompting

        return NumberPrompting(self)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with `label` converted to a finite number; raises ValueError if it is not one."""
        label = values.get("label")
        return values if label is None else {**values, "label": _parse_number(label)}

    def strata(self, rows: pa.Table) -> list[str]:
        """The quantile range of each row's number: ten ranges, or fewer if they would have less than 20 rows each."""
        import numpy as np

        numbers = _label_numbers(rows)
        ranges = max(1, min(RANGES, len(numbers) // ROWS_OF_RANGE))
        bounds = np.quantile(numbers, np.linspace(0, 1, ranges + 1)[1:-1]) if ranges > 1 else np.zeros(0)
        return [str(index) for index in np.searchsorted(bounds, numbers)]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`{"mean", "deviation"}` of the training rows' numbers; raises DataError if they are all equal."""
        numbers = _label_numbers(train)
        if not len(numbers) or numbers.min() == numbers.max():
            raise DataError(
                f"all rows have the number {numbers[0]:g}" if len(numbers) else "has no rows",
                where="the training split, column label",
                fix="Check the column that ingest.columns maps to label.",
            )
        return {"mean": float(numbers.mean()), "deviation": float(numbers.std())}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` (list<int32>), `label` (double), `standard` (double, standardized), `lost` (int32).

        Raises DataError for a null text.
        """
        import pyarrow as pa

        if not labelled:
            return encode_rows(rows, tokenizer, max_length, targets)
        numbers = _label_numbers(rows)
        standard = (numbers - targets["mean"]) / targets["deviation"]
        return encode_rows(rows, tokenizer, max_length, targets, label=pa.array(numbers), standard=pa.array(standard))

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, longest], int64; labels [rows], float32, standardized."""
        import torch

        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        if "standard" in rows:
            batch["labels"] = torch.tensor([float(number) for number in rows["standard"]])
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head of one output, like transformers' regression models."""
        return load_with_head("AutoModelForSequenceClassification", base, num_labels=1, problem_type="regression")

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed error of a batch, float32, and its number of rows."""
        from torch.nn import functional

        losses: dict[str, Any] = {
            "mse": functional.mse_loss,
            "huber": functional.huber_loss,
            "mae": functional.l1_loss,
        }
        labels = batch["labels"]
        return losses[self.error](_standard_scores(model, batch), labels, reduction="sum"), len(labels)

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: the standardized number of each row [rows], float32."""
        return {"scores": _standard_scores(model, batch).detach().cpu().numpy()}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics of standardized numbers: n, sums for errors and Pearson's correlation, and the same for ranks.

        Ranks are among all rows, ties averaged; Spearman's correlation of a subset of rows is computed from them.
        """
        import numpy as np

        numbers, right = tokens["label"].to_numpy(), tokens["standard"].to_numpy()
        predicted = np.asarray(predictions["scores"], np.float64)
        errors = np.abs(predicted - right)
        pairs = [*_moments(predicted, right), *_moments(_ranks(predicted), _ranks(right))]
        return Outcome(
            statistics=np.stack([np.ones(len(right)), errors, errors**2, *pairs], axis=1),
            predictions=[f"{number:.4g}" for number in _to_label_unit(predicted, targets)],
            references=[f"{number:.4g}" for number in numbers],
            errors=errors,
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`r2` (1 if every number is right, 0 for predicting the rows' mean), correlations, errors in the label's unit.

        The correlation of constant predictions is 0. If all references are equal, `r2` and correlations are nan.
        """
        import numpy as np

        n, absolute, squares, *pairs = sums
        variance = pairs[3] - safe_ratio(pairs[1] ** 2, n)
        varies = variance > _ROUNDING * pairs[3]
        return {
            "r2": np.where(varies, 1 - safe_ratio(squares, np.where(varies, variance, 1)), np.nan),
            "pearson": _correlation(n, *pairs[:5]),
            "spearman": _correlation(n, *pairs[5:]),
            "mae": targets["deviation"] * safe_ratio(absolute, n),
            "rmse": targets["deviation"] * np.sqrt(safe_ratio(squares, n)),
        }

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`mean`: the mean of the training rows, for every text."""
        import numpy as np

        return {"mean": {"scores": np.zeros(len(test), np.float32)}}

    def neighbour_predictions(
        self, weights: np.ndarray, neighbours: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """The weighted mean of the neighbours' numbers."""
        import numpy as np

        return {
            "scores": np.average(train["standard"].to_numpy()[neighbours], axis=1, weights=weights).astype(np.float32)
        }

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """`value`: the predicted number in the label's unit; `truncated`: whether the text's end was cut off."""
        import numpy as np

        numbers = _to_label_unit(np.asarray(predictions["scores"], np.float64), targets)
        pairs = zip(numbers, list_truncated(tokens), strict=True)
        return [{"value": float(number), "truncated": truncated} for number, truncated in pairs]


# A variance computed from sums is a difference of large numbers: below this share of them it is rounding error.
_ROUNDING = 1e-10


def _parse_number(value: Any) -> float:
    """A finite float from a number or its text; raises ValueError otherwise."""
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    # "_": float() reads 1_000 as 1000.
    try:
        number = float(value) if is_number or (isinstance(value, str) and "_" not in value) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"label is not a number: {value!r}")
    return number


def _label_numbers(rows: pa.Table) -> np.ndarray:
    import numpy as np

    return np.array([float(text) for text in rows["label"].to_pylist()], np.float64)


def _to_label_unit(standard: np.ndarray, targets: Targets) -> np.ndarray:
    """Convert standardized numbers to the label's unit."""
    numbers: np.ndarray = targets["mean"] + targets["deviation"] * standard
    return numbers


def _standard_scores(model: Any, batch: Batch) -> Tensor:
    return text_logits(model, batch)[:, 0]


def _moments(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    return [x, y, x * x, y * y, x * y]


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, ties averaged, scaled to -0.5..0.5: small sums keep their digits."""
    import numpy as np

    _, value_index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - counts / 2)[value_index] / len(values) - 0.5
    return ranks


def _correlation(
    n: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> np.ndarray:
    """Pearson's correlation from sums over n rows: 0 where x is constant, nan where y is."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        variance_x, variance_y, covariance = xx - x * x / n, yy - y * y / n, xy - x * y / n
        correlation = np.where(variance_x > _ROUNDING * xx, covariance / np.sqrt(variance_x * variance_y), 0.0)
        return np.where(variance_y > _ROUNDING * yy, np.clip(correlation, -1, 1), np.nan)
