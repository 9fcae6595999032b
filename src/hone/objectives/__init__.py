"""The table of objectives: what a model can learn. Each objective has a file of its own and a line in the table."""

from __future__ import annotations

from hone.objectives.base import Objective
from hone.objectives.causal_lm import CausalLM
from hone.objectives.chat.objective import Chat
from hone.objectives.embedding import Embedding
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.preference.objective import Preference
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.regression import Regression
from hone.objectives.seq2seq import Seq2Seq
from hone.objectives.span_corruption import SpanCorruption
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification
from hone.parts.plugins import PartTable

OBJECTIVES: PartTable[Objective] = PartTable(
    "hone.objectives",
    {
        "text-classification": TextClassification,
        "multi-label-classification": MultiLabelClassification,
        "regression": Regression,
        "token-classification": TokenClassification,
        "question-answering": QuestionAnswering,
        "seq2seq": Seq2Seq,
        "chat": Chat,
        "preference": Preference,
        "causal-lm": CausalLM,
        "masked-lm": MaskedLM,
        "span-corruption": SpanCorruption,
        "embedding": Embedding,
    },
)
