"""Text classification in words: the answer is one label from a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hone.objectives.base import Targets
from hone.objectives.prompting import forms
from hone.objectives.prompting.prompting import Judgement, Prompting

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.text_classification import TextClassification


@dataclass(frozen=True)
class LabelPrompting(Prompting):
    """The answer is a label, as a JSON string if the label could be misread (`forms.write_choice`)."""

    objective: TextClassification

    @property
    def metric(self) -> str:
        """Accuracy."""
        return self.objective.main_metric

    def describe_task(self, targets: Targets) -> str:
        """Which labels there are, and to write one of them."""
        choices = self.list_choices(targets)
        quoted = any(choice != label for choice, label in zip(choices, targets["labels"], strict=True))
        form = " A label in double quotes is a JSON string: write it with its quotes." if quoted else ""
        return (
            "Assign one of these labels to the text:\n"
            f"{forms.describe_choices(targets['labels'])}\n"
            f"Write only the label, exactly as it is in the list, and nothing else.{form}"
        )

    def list_choices(self, targets: Targets) -> tuple[str, ...]:
        """The labels, as they are written in answers."""
        return tuple(map(forms.write_choice, targets["labels"]))

    def build_questions(self, rows: pa.Table) -> list[str]:
        """The texts."""
        return [text or "" for text in rows["text"].to_pylist()]

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The labels, as they are written in answers."""
        return [forms.write_choice(label or "") for label in rows["label"].to_pylist()]

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`; without confidences.

        An invalid answer is a prediction of no label: its row lowers accuracy and the recall of the right label, and no
        label's precision. That is what scikit-learn computes with invalid answers as a label of their own and f1_score
        over the other labels that occur or were predicted. Its class is len(labels) + 1, behind that of all labels
        which no training row has (UNSEEN); these are wrong for every answer.
        """
        import numpy as np

        labels = targets["labels"]
        choices = forms.Choices(labels)
        indices = [forms.find_choice(answer, choices) for answer in answers]
        invalid = np.array([index is None for index in indices], bool)
        predicted = np.array([index or 0 for index in indices], np.int64)
        outcome = self.objective.compute_outcome(tokens, {"scores": np.eye(len(labels))[predicted]}, targets)
        right, _, _ = np.split(statistics := outcome.statistics.copy(), 3, axis=1)
        right[invalid] = 0
        statistics[invalid, -right.shape[1] :] = 0
        references = tokens["label"].to_numpy()
        classes = np.stack([references, np.where(invalid, len(labels) + 1, predicted)])
        texts = zip(answers, outcome.predictions, invalid, strict=True)
        judged = replace(
            outcome,
            statistics=statistics,
            predictions=[answer.strip() if is_invalid else label for answer, label, is_invalid in texts],
            errors=(classes[0] != classes[1]).astype(np.float64),
            confidences=None,
            classes=classes,
        )
        return Judgement(judged, invalid)
