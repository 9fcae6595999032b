"""The trained model with retrieval: asked with the passages that a rival had in its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.objectives.base import Objective, Targets
from hone.store import layout

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.evaluation.judging.predict import Advance
    from hone.objectives.prompting.prompting import Prompting
    from hone.objectives.shared.reading import Reader

CHUNK = 64  # inputs that are answered at once: between two reports of progress


@dataclass(frozen=True)
class Retrieved:
    """The passages of one rival, by the id of the row."""

    rival: str
    passages: Mapping[str, list[str]]


def read_passages(folder: Path) -> list[Retrieved]:
    """The passages of the rivals that had some, from the artifact of their answers."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(folder / layout.ANSWERS, columns=["rival", "id", "passages"])
    table = table.filter(pc.is_valid(table["passages"]))
    rivals = dict.fromkeys(table["rival"].to_pylist())
    lines = table.to_pylist()
    return [
        Retrieved(name, {line["id"]: line["passages"] for line in lines if line["rival"] == name}) for name in rivals
    ]


def ask_with_passages(
    retrieved: Retrieved,
    objective: Objective,
    rows: pa.Table,
    model: Any,
    reader: Reader,
    targets: Targets,
    max_length: int,
    advance: Advance,
) -> dict[str, str]:
    """The served model's answers by row id, for the rows that have passages."""
    prompting = require_prompting(objective)
    pairs = [
        (name, prompting.add_passages(inputs, retrieved.passages[name]))
        for name, inputs in zip(rows["id"].to_pylist(), objective.question_inputs(rows), strict=True)
        if name in retrieved.passages
    ]
    answers: dict[str, str] = {}
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        served = reader.answer(model, [inputs for _, inputs in chunk], targets, max_length)
        for (name, _), answer in zip(chunk, served, strict=True):
            answers[name] = prompting.read_served(answer, targets)
        advance(len(chunk), f"asking with the passages of {retrieved.rival}")
    return answers


def require_prompting(objective: Objective) -> Prompting:
    """How the objective is prompted; raises ValueError if it is not, which its configuration was refused for."""
    prompting = objective.prompting
    if prompting is None:
        raise ValueError(f"{type(objective).__name__} does not say how it is prompted")
    return prompting
