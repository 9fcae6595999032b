"""Counterfactual flips: does an answer change when words such as `he` and `she` are swapped in the input?

The idea is that of counterfactual fairness tests: Garg et al., Counterfactual Fairness in Text Classification through
Robustness, 2019 (arXiv 1809.10610).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.evaluation.judging.intervals import Interval
from hone.evaluation.judging.lexicon import Lexicon
from hone.evaluation.judging.wilson import wilson

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.base import Objective

Inputs = Mapping[str, str]

LISTED = 100  # rows with changed answers that metrics.json has
CLIP = 500  # characters of a text and of an answer there
CHUNK = 256  # inputs that are answered at once: between two reports of progress


@dataclass(frozen=True)
class Question:
    """A row that contains words of the lexicon: as it is, with all of them swapped, and with those of each pair alone.

    The inputs are numbers in `Plan.inputs`; `by_pair` has them by the pair's number.
    """

    row: int
    original: int
    swapped: int
    by_pair: Mapping[int, int]


@dataclass(frozen=True)
class Plan:
    """What the model is asked: `inputs` without repetitions, and which of them each question compares."""

    lexicon: Lexicon
    inputs: Sequence[Inputs]
    questions: Sequence[Question]


def plan_flips(objective: Objective, rows: pa.Table, lexicon: Lexicon) -> Plan:
    """The questions on the `rows` that contain a word of the lexicon; others are not asked."""
    places: dict[tuple[tuple[str, str], ...], int] = {}
    questions, parts_by_pair = [], [lexicon.select(pair) for pair in range(len(lexicon.pairs))]
    for number, inputs in enumerate(objective.question_inputs(rows)):
        pairs = _find_pairs(objective, inputs, lexicon)
        swapped = swap_inputs(objective, inputs, lexicon) if pairs else inputs
        if swapped == inputs:  # no word, or one that its objective cannot replace
            continue
        variants = {pair: swap_inputs(objective, inputs, parts_by_pair[pair]) for pair in sorted(pairs)}
        original, whole, *parts = (
            places.setdefault(tuple(sorted(asked.items())), len(places))
            for asked in (inputs, swapped, *variants.values())
        )
        questions.append(Question(number, original, whole, dict(zip(variants, parts, strict=True))))
    return Plan(lexicon, [dict(key) for key in places], questions)


def ask(plan: Plan, answer: Callable[[Sequence[Inputs]], list[Any]], advance: Callable[[int], object]) -> list[Any]:
    """The answers to the plan's inputs, in their order; `advance` is called with the number of each part of them."""
    answers: list[Any] = []
    for start in range(0, len(plan.inputs), CHUNK):
        chunk = plan.inputs[start : start + CHUNK]
        answers += answer(chunk)
        advance(len(chunk))
    return answers


def judge_flips(
    plan: Plan, answers: Sequence[Any], objective: Objective, rows: pa.Table, confidence: float
) -> dict[str, Any]:
    """The share of questions whose answer changes, of all pairs at once and of each alone, and the rows with changes.

    An answer that is free text (`Objective.writes_answers`) is the same if its own words are swapped alike. Intervals
    are Wilson's, of the rows that contain a word.
    """
    texts = [objective.describe_answer(answer) for answer in answers]
    ids = rows["id"].to_pylist()
    changed = [q for q in plan.questions if _differs(texts[q.original], texts[q.swapped], plan.lexicon, objective)]
    return {
        "lexicon": plan.lexicon.name,
        "source": plan.lexicon.source,
        "limits": list(plan.lexicon.limits),
        "of": len(rows),
        **_rate(len(changed), len(plan.questions), confidence),
        "by_pair": _judge_pairs(plan, texts, objective, confidence),
        "listed": [
            {
                "id": ids[question.row],
                "text": _show(objective, plan.inputs[question.original]),
                "swapped": _show(objective, plan.inputs[question.swapped]),
                "before": clip(texts[question.original]),
                "after": clip(texts[question.swapped]),
            }
            for question in changed[:LISTED]
        ],
    }


def swap_inputs(objective: Objective, inputs: Inputs, lexicon: Lexicon) -> dict[str, str]:
    """The inputs with the lexicon's words swapped in all their texts."""
    swapped = dict(inputs)
    for name, texts in _iter_texts(objective, inputs):
        changed = [lexicon.swap(text) for text in texts]
        if changed != texts:
            is_column = name in objective.text
            swapped[name] = objective.replace_texts(name, inputs[name], changed) if is_column else changed[0]
    return swapped


def clip(text: str) -> str:
    """The text with at most CLIP characters."""
    return text if len(text) <= CLIP else text[: CLIP - 1] + "…"


def _find_pairs(objective: Objective, inputs: Inputs, lexicon: Lexicon) -> set[int]:
    return {pair for _, texts in _iter_texts(objective, inputs) for text in texts for pair in lexicon.find_pairs(text)}


def _iter_texts(objective: Objective, inputs: Inputs) -> list[tuple[str, list[str]]]:
    """The names of the inputs that hold text, with their texts."""
    return [
        (name, objective.extract_texts(name, value) if name in objective.text else [value])
        for name, value in inputs.items()
        if value and (name in objective.text or name not in objective.columns)
    ]


def _differs(before: str, after: str, lexicon: Lexicon, objective: Objective) -> bool:
    return after != before and not (objective.writes_answers and after == lexicon.swap(before))


def _judge_pairs(plan: Plan, texts: Sequence[str], objective: Objective, confidence: float) -> list[dict[str, Any]]:
    """Each pair that occurs, swapped alone: its words, rows, changed answers and rate; the most frequent first."""
    judged = []
    for number, words in enumerate(plan.lexicon.pairs):
        asked = [q for q in plan.questions if number in q.by_pair]
        part = plan.lexicon.select(number)
        changed = sum(_differs(texts[q.original], texts[q.by_pair[number]], part, objective) for q in asked)
        if asked:
            judged.append({"pair": list(words), **_rate(changed, len(asked), confidence)})
    return sorted(judged, key=lambda pair: -int(pair["rows"]))


def _rate(changed: int, rows: int, confidence: float) -> dict[str, Any]:
    """The share `rate` of `changed` rows with its interval; None without rows."""
    from scipy.special import ndtri

    rate: Interval | None = None
    if rows:
        low, high = wilson(changed / rows, rows, float(ndtri((1 + confidence) / 2)))
        rate = {"value": changed / rows, "low": low, "high": high}
    return {"rows": rows, "changed": changed, "rate": rate}


def _show(objective: Objective, inputs: Inputs) -> str:
    """The texts of the inputs for people, one per line."""
    return clip("\n".join(text for _, texts in _iter_texts(objective, inputs) for text in texts))
