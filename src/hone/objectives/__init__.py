"""What a model can learn: one file for each objective, one line for it in the table."""

from __future__ import annotations

from hone.objectives.chat import Chat
from hone.objectives.objective import Objective
from hone.objectives.seq2seq import Seq2Seq
from hone.objectives.text_classification import TextClassification

OBJECTIVES: dict[str, type[Objective]] = {
    "text-classification": TextClassification,
    "seq2seq": Seq2Seq,
    "chat": Chat,
}
