"""Prompting: how rows are put in words to a model that was not trained on them, and how its answers are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.objectives.base import Objective, Outcome, Targets

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Judgement:
    """The outcome of answers on n rows, and which of them have no readable form: bool [n]. Those count as wrong."""

    outcome: Outcome
    invalid: np.ndarray


class Prompting(ABC):
    """What an objective defines so that prompted models take part in its evaluation (`Objective.prompting`).

    `rows` are rows of a split, in the objective's columns. `targets` are those of the training rows. A metric that
    prompted models do not have, such as perplexity, is nan in what `compute_metrics` returns for their statistics.
    """

    objective: Objective

    @property
    @abstractmethod
    def metric(self) -> str:
        """The name of the objective's metric on which prompted models are compared with the trained one."""

    @property
    def takes_passages(self) -> bool:
        """Whether passages of a corpus help to answer."""
        return False

    @abstractmethod
    def describe_task(self, targets: Targets) -> str:
        """The instruction: what to write, and in which form. Names all choices, if there are any."""

    def list_choices(self, targets: Targets) -> tuple[str, ...]:
        """The only possible answers; empty if the answer is free text."""
        return ()

    @abstractmethod
    def build_questions(self, rows: pa.Table) -> list[str]:
        """What a model reads of each row: its inputs as text."""

    @abstractmethod
    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The right answer of each row, in the form that the instruction asks for; never empty."""

    @abstractmethod
    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """The outcome of a model's answers to `rows`, whose encoded rows, in the same order, are `tokens`.

        An answer that has no readable form counts as wrong, whatever the right answer is: its error is above 0, but
        its predicted text is the answer itself. Surrounding spaces, quotes, code fences and the case of a label do not
        make an answer unreadable; an empty answer is unreadable.
        """

    def select_rows(self, tokens: pa.Table) -> np.ndarray | None:
        """Which of the encoded test rows the trained model answers too, so that both can be compared: bool [rows].

        None, the default, for all of them.
        """
        return None

    def build_queries(self, rows: pa.Table) -> list[str]:
        """What is looked up for each row in a corpus of passages; by default the question."""
        return self.build_questions(rows)

    def build_open_questions(self, rows: pa.Table) -> list[str]:
        """The questions without the context that retrieved passages replace; by default as `build_questions`."""
        return self.build_questions(rows)

    def add_passages(self, inputs: Mapping[str, str], passages: Sequence[str]) -> dict[str, str]:
        """What the trained model reads of a row with retrieved passages in place of its own context."""
        return dict(inputs)

    def read_served(self, answer: Mapping[str, Any], targets: Targets) -> str:
        """An answer of the served model, one of `Objective.build_answers`, as `judge` takes it."""
        return self.objective.describe_answer(answer)

    def find_support(self, rows: pa.Table, passages: Sequence[Sequence[str]]) -> list[bool | None]:
        """Whether each row's retrieved passages contain its right answer; None where that is undefined."""
        return [None] * rows.num_rows
