"""What a model can learn: one file for each objective, one line for it in the table."""

from __future__ import annotations

from hone.objectives.objective import Objective
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification

OBJECTIVES: dict[str, type[Objective]] = {
    "question-answering": QuestionAnswering,
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
}
