"""What a model can learn: one file for each objective, one line for it in the table."""

from __future__ import annotations

from hone.objectives.embedding import Embedding
from hone.objectives.objective import Objective
from hone.objectives.preference import Preference
from hone.objectives.text_classification import TextClassification

OBJECTIVES: dict[str, type[Objective]] = {
    "embedding": Embedding,
    "preference": Preference,
    "text-classification": TextClassification,
}
