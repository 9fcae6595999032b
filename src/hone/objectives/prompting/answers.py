"""Extractive question answering in words: the answer is a part of the context, or that there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hone.objectives.base import Targets
from hone.objectives.prompting import forms
from hone.objectives.prompting.prompting import Judgement, Prompting
from hone.objectives.shared import squad

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.question_answering import QuestionAnswering

NO_ANSWER = "unanswerable"  # a word that hardly any context has
_SCORES = (0, 1, 3, 4, 6)  # F1 and exact match among the statistics of QuestionAnswering.compute_outcome


@dataclass(frozen=True)
class AnswerPrompting(Prompting):
    """The answer is a text, compared by SQuAD's rules, or NO_ANSWER if some training rows have no answer."""

    objective: QuestionAnswering

    @property
    def metric(self) -> str:
        """F1."""
        return self.objective.main_metric

    @property
    def takes_passages(self) -> bool:
        """True."""
        return True

    def describe_task(self, targets: Targets) -> str:
        """To copy the answer from the context."""
        none = f" If the context does not answer it, write {NO_ANSWER}." if targets["no_answer"] else ""
        return (
            "Answer the question with the shortest part of the context that answers it. Write only this part, copied"
            f" exactly, and nothing else.{none}"
        )

    def build_questions(self, rows: pa.Table) -> list[str]:
        """Each context with the question after it."""
        both = zip(rows["context"].to_pylist(), rows["question"].to_pylist(), strict=True)
        return [f"Context: {context or ''}\n\nQuestion: {question or ''}" for context, question in both]

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The first right answer of each row that has words, NO_ANSWER if there is none."""
        return [next((text for text in texts if text.strip()), NO_ANSWER) for texts in _list_references(rows)]

    def build_queries(self, rows: pa.Table) -> list[str]:
        """The questions."""
        return [question or "" for question in rows["question"].to_pylist()]

    def build_open_questions(self, rows: pa.Table) -> list[str]:
        """The questions, without their contexts."""
        return self.build_queries(rows)

    def add_passages(self, inputs: Mapping[str, str], passages: Sequence[str]) -> dict[str, str]:
        """The question, with the passages as its context."""
        return {**inputs, "context": "\n\n".join(passages)}

    def read_served(self, answer: Mapping[str, Any], targets: Targets) -> str:
        """The answer's text; NO_ANSWER for none."""
        return str(answer["answer"]) or (NO_ANSWER if targets["no_answer"] else "")

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`; without confidences.

        An answer without a word is invalid: it is not what NO_ANSWER says, and so wrong for a question without an
        answer too. SQuAD's rules, which ignore punctuation and articles, would count it as right there. Valid it is
        only if a right answer has no other words. If every training row has an answer, NO_ANSWER is a text like any
        other.
        """
        import numpy as np

        references = _list_references(rows)
        contexts = rows["context"].to_pylist()
        texts = [_extract_text(*pair) for pair in zip(answers, contexts, strict=True)]
        invalid = np.array([not _has_words(*pair) for pair in zip(texts, references, strict=True)], bool)
        none = [
            bool(targets["no_answer"]) and _is_none(text) and not any(map(_is_none, row_references))
            for text, row_references in zip(texts, references, strict=True)
        ]
        decided = ["" if is_none else text for text, is_none in zip(texts, none, strict=True)]
        outcome = self.objective.compute_outcome(tokens, {"texts": decided}, targets, rows)
        statistics = outcome.statistics.copy()
        statistics[np.ix_(invalid.nonzero()[0], np.array(_SCORES))] = 0
        shown = zip(answers, outcome.predictions, invalid, strict=True)
        judged = replace(
            outcome,
            statistics=statistics,
            predictions=[answer.strip() if is_invalid else text for answer, text, is_invalid in shown],
            errors=np.where(invalid, 2.0, outcome.errors),
        )
        return Judgement(judged, invalid)

    def find_support(self, rows: pa.Table, passages: Sequence[Sequence[str]]) -> list[bool | None]:
        """Whether one of a row's passages contains one of its right answers, both without case, ASCII punctuation and
        English articles, in whole words; None for a question without an answer.
        """
        normalized_passages = [[f" {squad.normalize_answer(text)} " for text in texts] for texts in passages]
        normalized_answers = [
            [f" {text} " for text in map(squad.normalize_answer, texts) if text] for texts in _list_references(rows)
        ]
        pairs = zip(normalized_answers, normalized_passages, strict=True)
        return [any(answer in text for answer in right for text in texts) if right else None for right, texts in pairs]


def _list_references(rows: pa.Table) -> list[list[str]]:
    return [list(json.loads(value)["text"]) if value else [] for value in rows["answers"].to_pylist()]


def _extract_text(answer: str, context: str | None) -> str:
    """The answer without a code fence, a heading or JSON around it, unless the context has it as it is."""
    text = answer.strip()
    if text in (context or ""):
        return text
    text = forms.strip_prefix(forms.strip_fence(text))
    try:
        value = forms.parse_answer(text)
    except ValueError:
        return text
    return value.strip() if isinstance(value, str) else text


def _is_none(text: str) -> bool:
    return squad.normalize_answer(text) == NO_ANSWER


def _has_words(text: str, references: Sequence[str]) -> bool:
    """Whether an answer has words by SQuAD's rules, or as few as one of the references."""
    words = squad.normalize_answer(text)
    return bool(words) or (bool(text) and any(not squad.normalize_answer(reference) for reference in references))
