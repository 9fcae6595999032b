"""What a model can learn: one file for each objective, one line for it in the table."""

from __future__ import annotations

from hone.objectives.causal_lm import CausalLM
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.objective import Objective
from hone.objectives.span_corruption import SpanCorruption
from hone.objectives.text_classification import TextClassification

OBJECTIVES: dict[str, type[Objective]] = {
    "causal-lm": CausalLM,
    "masked-lm": MaskedLM,
    "span-corruption": SpanCorruption,
    "text-classification": TextClassification,
}
