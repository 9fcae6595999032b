"""Sequence to sequence in words: the answer is the target text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.objectives.base import Targets
from hone.objectives.prompting.prompting import Judgement, Prompting
from hone.objectives.seq2seq import parse_references

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.seq2seq import Seq2Seq


@dataclass(frozen=True)
class TextPrompting(Prompting):
    """The answer is a text, compared as it is: marks around it may be part of a target."""

    objective: Seq2Seq

    @property
    def metric(self) -> str:
        """ROUGE-L."""
        return "rougeL"

    def describe_task(self, targets: Targets) -> str:
        """To write the output; what it is only examples and the option `prefix` show."""
        prefix = self.objective.prefix.strip()
        return (
            "Write the output that belongs to the input, in the manner of the examples."
            + (f" The task is described as: {prefix}" if prefix else "")
            + "\nWrite only the output, without an introduction, quotes or comments."
        )

    def build_questions(self, rows: pa.Table) -> list[str]:
        """The sources, without the option `prefix`."""
        return [text or "" for text in rows["text"].to_pylist()]

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The first reference of each source."""
        return [parse_references(value or "")[0] for value in rows["target"].to_pylist()]

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`. Only an empty answer is invalid: its scores are 0, and its error is 1."""
        import numpy as np

        texts = [answer.strip() for answer in answers]
        outcome = self.objective.compute_outcome(tokens, {"text": texts}, targets, rows)
        return Judgement(outcome, np.array([not text for text in texts], bool))
