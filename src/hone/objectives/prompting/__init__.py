"""The table of how objectives put their rows in words; an objective's property `prompting` returns its entry.

`hone.store.recipe` does not follow tables, so these modules are part of no key of a stage before `rivals` and of no
registered model: whoever prompts adds the module of `type(objective.prompting)` to its own key.
"""

from __future__ import annotations

from hone.objectives.prompting.answers import AnswerPrompting
from hone.objectives.prompting.chat import ChatPrompting
from hone.objectives.prompting.entities import EntityPrompting
from hone.objectives.prompting.label_sets import LabelSetPrompting
from hone.objectives.prompting.labels import LabelPrompting
from hone.objectives.prompting.numbers import NumberPrompting
from hone.objectives.prompting.texts import TextPrompting

__all__ = [
    "AnswerPrompting",
    "ChatPrompting",
    "EntityPrompting",
    "LabelPrompting",
    "LabelSetPrompting",
    "NumberPrompting",
    "TextPrompting",
]
