"""A number for a text: a rating, a price, a degree of similarity."""

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
from hone.objectives.shared.tokenizer import encode_rows
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch

# A random split draws from so many ranges of the number alike, each of this many rows or more.
RANGES, ROWS_OF_RANGE = 10, 20


@dataclass(frozen=True)
class Regression(Objective):
    """A number for a text.

    Inside, numbers are standard: less the mean of the training rows, by their deviation. So are `scores`.
    """

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    text: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"value": "double"}
    pipeline: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "r2": Metric("R²", is_share=False),
        "pearson": Metric("Pearson correlation", is_share=False),
        "spearman": Metric("Spearman correlation", is_share=False),
        "mae": Metric("Mean absolute error", lower_is_better=True, is_share=False),
        "rmse": Metric("Root mean squared error", lower_is_better=True, is_share=False),
    }

    error: Literal["mse", "huber", "mae"] = option(
        "mse", "What the loss makes of an error: its square, huber's for few wild numbers, its size.", learning=True
    )

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with `label` a finite number; raises ValueError where it is none."""
        given = values.get("label")
        return values if given is None else {**values, "label": _number(given)}

    def strata(self, rows: pa.Table) -> list[str]:
        """The range of each row's number: ten of like many rows, fewer where there would be less than 20 in each."""
        import numpy as np

        numbers = _numbers(rows)
        ranges = max(1, min(RANGES, len(numbers) // ROWS_OF_RANGE))
        bounds = np.quantile(numbers, np.linspace(0, 1, ranges + 1)[1:-1]) if ranges > 1 else np.zeros(0)
        return [str(place) for place in np.searchsorted(bounds, numbers)]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`{"mean", "deviation"}` of the training rows' numbers; raises DataError where all are the same."""
        numbers = _numbers(train)
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
        """`id`, `input_ids` (list<int32>), `label` (double), `standard` (double, the standard one), `lost` (int32).

        Raises DataError for a text that is null.
        """
        import pyarrow as pa

        if not labelled:
            return encode_rows(rows, tokenizer, max_length)
        numbers = _numbers(rows)
        standard = (numbers - targets["mean"]) / targets["deviation"]
        return encode_rows(rows, tokenizer, max_length, label=pa.array(numbers), standard=pa.array(standard))

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, longest], int64; labels [rows], float32, standard; padded with `pad_id`."""
        import torch

        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        if "standard" in rows:
            batch["labels"] = torch.tensor([float(number) for number in rows["standard"]])
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head of one output, as transformers' regression models."""
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
        return losses[self.error](_said(model, batch), labels, reduction="sum"), len(labels)

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: the standard number of each row [rows], float32."""
        return {"scores": _said(model, batch).detach().cpu().numpy()}

    def compute_outcome(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics of standard numbers: n, and sums for errors, Pearson's correlation, and the same of their ranks.

        Ranks are those among all rows, ties averaged: Spearman's correlation of some of them is that of these ranks.
        """
        import numpy as np

        numbers, right = tokens["label"].to_numpy(), tokens["standard"].to_numpy()
        said = np.asarray(raw["scores"], np.float64)
        errors = np.abs(said - right)
        pairs = [*_products(said, right), *_products(_ranks(said), _ranks(right))]
        return Outcome(
            statistics=np.stack([np.ones(len(right)), errors, errors**2, *pairs], axis=1),
            predictions=[f"{number:.4g}" for number in _original(said, targets)],
            references=[f"{number:.4g}" for number in numbers],
            errors=errors,
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`r2`, 1 where every number is right and 0 for the rows' own mean; correlations; errors in the label's unit.

        Constant answers correlate with nothing: 0. Where the right numbers are all one, `r2` and these are nan.
        """
        import numpy as np

        n, sizes, squares, *pairs = sums
        around = pairs[3] - safe_ratio(pairs[1] ** 2, n)
        known = around > _ROUNDING * pairs[3]
        return {
            "r2": np.where(known, 1 - safe_ratio(squares, np.where(known, around, 1)), np.nan),
            "pearson": _correlation(n, *pairs[:5]),
            "spearman": _correlation(n, *pairs[5:]),
            "mae": targets["deviation"] * safe_ratio(sizes, n),
            "rmse": targets["deviation"] * np.sqrt(safe_ratio(squares, n)),
        }

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`mean`: that of the training rows, for every text."""
        import numpy as np

        return {"mean": {"scores": np.zeros(len(test), np.float32)}}

    def neighbour_predictions(
        self, weights: np.ndarray, at: np.ndarray, train: pa.Table, targets: Targets
    ) -> Predictions:
        """The weighted mean."""
        import numpy as np

        return {"scores": np.average(train["standard"].to_numpy()[at], axis=1, weights=weights).astype(np.float32)}

    def build_answers(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `value`, in the label's unit."""
        import numpy as np

        return [{"value": float(value)} for value in _original(np.asarray(raw["scores"], np.float64), targets)]


# Sums of squares less the square of the sum: what is left of it below this share is rounding.
_ROUNDING = 1e-10


def _number(given: Any) -> float:
    """A finite number of a number or its text."""
    plain = isinstance(given, (int, float, Decimal)) and not isinstance(given, bool)
    try:
        number = float(given) if plain or (isinstance(given, str) and "_" not in given) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"label is not a number: {given!r}")
    return number


def _numbers(rows: pa.Table) -> np.ndarray:
    import numpy as np

    return np.array([float(text) for text in rows["label"].to_pylist()], np.float64)


def _original(standard: np.ndarray, targets: Targets) -> np.ndarray:
    """Numbers in the label's unit."""
    found: np.ndarray = targets["mean"] + targets["deviation"] * standard
    return found


def _said(model: Any, batch: Batch) -> Tensor:
    return text_logits(model, batch)[:, 0]


def _products(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    return [x, y, x * x, y * y, x * y]


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value among all, ties averaged, from -0.5 to 0.5: small sums keep their digits."""
    import numpy as np

    _, places, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(sizes) - sizes / 2)[places] / len(values) - 0.5
    return ranks


def _correlation(
    n: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> np.ndarray:
    """Pearson's, from sums over n rows: 0 where x is constant, nan where y is."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        of_x, of_y, both = xx - x * x / n, yy - y * y / n, xy - x * y / n
        found = np.where(of_x > _ROUNDING * xx, both / np.sqrt(of_x * of_y), 0.0)
        return np.where(of_y > _ROUNDING * yy, np.clip(found, -1, 1), np.nan)
