"""Regression in words: the answer is a number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hone.objectives.base import Targets
from hone.objectives.prompting.prompting import Judgement, Prompting

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.regression import Regression

_MINUS = "\u2212"
_SEPARATOR = re.compile(r"[\s:=]+")
_AROUND = "\"'`*_()[]{}<>“”‘’«»$€£"
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_LARGEST = 1e100  # standardized; sums of the squares of larger numbers overflow
_MIN_ERROR = 1e-6  # an invalid answer is wrong even if the mean, which it counts as, is the right number


@dataclass(frozen=True)
class NumberPrompting(Prompting):
    """The answer is a number with a decimal point, in the label's unit."""

    objective: Regression

    @property
    def metric(self) -> str:
        """R²."""
        return self.objective.main_metric

    def describe_task(self, targets: Targets) -> str:
        """To write a number, and what numbers the training rows have."""
        return (
            "Estimate the number that belongs to the text. Such numbers have a mean of "
            f"{targets['mean']:.4g} and a standard deviation of {targets['deviation']:.4g}.\n"
            "Write only the number, with a decimal point and without separators of thousands, units or words."
        )

    def build_questions(self, rows: pa.Table) -> list[str]:
        """The texts."""
        return [text or "" for text in rows["text"].to_pylist()]

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The numbers, with all their digits."""
        return [repr(float(value)).removesuffix(".0") for value in rows["label"].to_pylist()]

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`.

        An invalid answer, without a number or with more than one, counts as the mean of the training rows: a model that
        cannot be read is as good as the baseline `mean`, and not arbitrarily bad. Its error is at least 1e-6.
        """
        import numpy as np

        numbers = [parse_number(answer) for answer in answers]
        values = np.array([np.nan if number is None else number for number in numbers], np.float64)
        with np.errstate(over="ignore"):
            standard = (values - targets["mean"]) / targets["deviation"]
        invalid = ~(np.abs(standard) < _LARGEST)
        outcome = self.objective.compute_outcome(tokens, {"scores": np.where(invalid, 0.0, standard)}, targets)
        texts = zip(answers, outcome.predictions, invalid, strict=True)
        judged = replace(
            outcome,
            predictions=[answer.strip() if is_invalid else number for answer, number, is_invalid in texts],
            errors=np.where(invalid, np.maximum(outcome.errors, _MIN_ERROR), outcome.errors),
        )
        return Judgement(judged, invalid)


def parse_number(answer: str) -> float | None:
    """The only number in an answer, which may have words around it; None if there is none, or more than one.

    None also where it is not clear which number is meant: 4,5 and 1,000, 50%, 4/5, 3-4, 12:30, digits inside a word.
    May be infinite (1e999).
    """
    words = [word for word in _SEPARATOR.split(answer) if any(sign.isdigit() for sign in word)]
    if len(words) != 1:
        return None
    text = words[0].replace(_MINUS, "-").strip(_AROUND).rstrip(".,;!?").strip(_AROUND)
    return float(text) if _NUMBER.fullmatch(text) else None
