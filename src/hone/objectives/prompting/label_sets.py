"""Multi-label classification in words: the answer is a JSON list of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hone.objectives.base import Targets
from hone.objectives.prompting import forms
from hone.objectives.prompting.prompting import Judgement, Prompting

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.multi_label import MultiLabelClassification

NONE = "none"
_SEPARATORS = ("\n", ";", ",")
_BULLET = re.compile(r"\s*[-*•]\s+")
_EXACT = -2  # the column of the exact match in the statistics of MultiLabelClassification


@dataclass(frozen=True)
class LabelSetPrompting(Prompting):
    """The answer is a JSON list of labels; labels separated by lines, semicolons or commas, and `none` are read."""

    objective: MultiLabelClassification

    @property
    def metric(self) -> str:
        """Micro-F1."""
        return self.objective.main_metric

    def describe_task(self, targets: Targets) -> str:
        """Which labels there are, and to list those that apply."""
        labels = [json.dumps(label, ensure_ascii=False) for label in targets["labels"]]
        return (
            "Decide which of these labels apply to the text; it may be several, one or none:\n"
            + "\n".join(f"- {label}" for label in labels)
            + "\nWrite only a JSON list of the labels that apply, exactly as they are in this list, such as "
            f"[{labels[0]}]. If none applies, write []."
        )

    def build_questions(self, rows: pa.Table) -> list[str]:
        """The texts."""
        return [text or "" for text in rows["text"].to_pylist()]

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The labels as JSON lists."""
        return [json.dumps(json.loads(value or "[]"), ensure_ascii=False) for value in rows["labels"].to_pylist()]

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`.

        An invalid answer, such as one with a label that is not in the list, predicts no label. It is never an exact
        match, not even if the row has no label. Hamming loss counts the labels that the row has, so nothing for such a
        row: it is about pairs of row and label, and no label was predicted.
        """
        import numpy as np

        labels = targets["labels"]
        choices = forms.Choices(labels)
        predicted = [_find_labels(answer, choices) for answer in answers]
        invalid = np.array([indices is None for indices in predicted], bool)
        scores = np.zeros((len(answers), len(labels)))
        for row, indices in enumerate(predicted):
            scores[row, indices or []] = 1
        untuned = {name: value for name, value in targets.items() if name != "thresholds"}  # a tuned one may be 0
        outcome = self.objective.compute_outcome(tokens, {"scores": scores}, untuned)
        statistics = outcome.statistics.copy()
        statistics[invalid, _EXACT] = 0
        texts = zip(answers, outcome.predictions, invalid, strict=True)
        judged = replace(
            outcome,
            statistics=statistics,
            predictions=[answer.strip() if is_invalid else names for answer, names, is_invalid in texts],
            errors=np.where(invalid, np.maximum(outcome.errors, 1.0), outcome.errors),
        )
        return Judgement(judged, invalid)


def _find_labels(answer: str, choices: forms.Choices) -> list[int] | None:
    """The indices of the labels that an answer lists; None if it is unreadable or has a label that does not exist."""
    try:
        value = forms.parse_answer(answer)
    except ValueError:
        value = forms.strip_fence(answer)
    if isinstance(value, str):
        indices = _split_labels(value.strip(), choices)
        return _split_labels(forms.strip_prefix(value.strip()), choices) if indices is None else indices
    names = [forms.as_name(item) for item in (value if isinstance(value, list) else [value])]
    return _collect([None if name is None else choices.find([name]) for name in names])


def _split_labels(text: str, choices: forms.Choices) -> list[int] | None:
    """The labels in plain text: one, or several with the first separator that leaves nothing but labels."""
    if text.rstrip(".").casefold() == NONE and choices.find([text]) is None:
        return []
    for separator in _SEPARATORS:
        parts = [part for part in text.split(separator) if part.strip()]
        indices = _collect([forms.find_choice(_BULLET.sub("", part, count=1), choices) for part in parts])
        if parts and indices is not None:
            return indices
    return None


def _collect(indices: Sequence[int | None]) -> list[int] | None:
    distinct = {index for index in indices if index is not None}
    return None if None in indices else sorted(distinct)
