"""Entities of rows as counts, from which metrics are computed, and as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hone.objectives.base import Targets
from hone.objectives.shared import tagging
from hone.objectives.shared.tagging import Entity

if TYPE_CHECKING:
    import numpy as np


def count_entities(
    references: Sequence[list[Entity]], predictions: Sequence[list[Entity]], targets: Targets
) -> np.ndarray:
    """Correct, reference and predicted entities of each type: float64 [rows, 3 * (types + 1)].

    The last type is that of all entities whose type is not in the targets.
    """
    import numpy as np

    types = {name: index for index, name in enumerate(tagging.list_types(targets["labels"], targets["scheme"]))}
    counts = np.zeros((len(references), 3, len(types) + 1))
    for row, (expected, predicted) in enumerate(zip(references, predictions, strict=True)):
        for kind, entities in enumerate((set(expected) & set(predicted), expected, predicted)):
            for entity in entities:
                counts[row, kind, types.get(entity.type, len(types))] += 1
    return counts.reshape(len(references), -1)


def describe_entities(entities: Sequence[Entity], words: Sequence[str] | None) -> str:
    """The entities as text for people: their words, or word positions if the words are unknown."""
    descriptions = [
        f"{' '.join(words[e.start : e.end]) if words else f'{e.start}-{e.end}'} [{e.type}]" for e in entities
    ]
    return "; ".join(descriptions) or "no entity"
