"""A judge compares answers two by two, each pair in both orders: Zheng et al., Judging LLM-as-a-Judge, 2023.

A side wins a pair only if it wins in both orders; a judge that prefers the first answer whatever it is thus gives ties.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hone.errors import DataError
from hone.evaluation.judging.intervals import share_interval
from hone.evaluation.judging.metrics import resample
from hone.evaluation.rivals.asking import Asked, Terms, ask_in_book
from hone.evaluation.rivals.completion import Completion, Engine
from hone.evaluation.rivals.prompts import Template
from hone.objectives.base import Objective
from hone.progress import OnProgress, Progress, ignore
from hone.sources.source import printable
from hone.splits import TEST
from hone.store import layout
from hone.store.artifact import Product
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import pyarrow as pa

Verdict = Literal["a", "b", "tie", ""]  # '' for a reply that is no verdict

DEFAULT = Path(__file__).with_name("judge.jinja")
NAMES = ("question", "first", "second")
COLUMNS = ("conversation", "answer_a", "answer_b", "winner")  # of a file of labelled pairs
RESAMPLES = 1000
_SWAPPED: dict[Verdict, Verdict] = {"a": "b", "b": "a", "tie": "tie", "": ""}
_VERDICT = re.compile(r"(?:(?:answer|verdict|winner)\s*:?\s*)*(a|b|tie)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """Two answers to one question; `first` is the trained model's, or a labelled pair's answer_a."""

    name: str
    question: str
    first: str
    second: str

    @property
    def is_equal(self) -> bool:
        """Whether the answers are the same but for spaces around them."""
        return self.first.strip() == self.second.strip()


def judge_answers(
    predictions: Path,
    splits: Path,
    out: Path,
    *,
    objective: Objective,
    engine: Engine,
    template: Template,
    terms: Terms,
    against: Sequence[str],
    labelled: Sequence[Mapping[str, Any]],
    limit: int | None,
    seed: int,
    confidence: float,
    description: Mapping[str, Any],
    on_progress: OnProgress = ignore,
) -> Product:
    """Judge the trained model's answers in the folder `predictions` against those of each opponent in `against`.

    Writes judge.json (a summary for each opponent, and the agreement with the `labelled` pairs) and verdicts.parquet.
    What a book has is not asked again. Raises DataError for labelled pairs in another form, and what the engine raises.
    """
    rows = _read_answers(predictions, splits, objective)
    positions = _draw_rows(len(rows), limit, seed)
    pairs = {name: _build_pairs(take_rows(rows, positions), name) for name in against}
    if labelled:
        pairs["labelled"] = _read_labelled(labelled)
    total, done = 2 * sum(map(len, pairs.values())), 0

    def on_answer(_index: int, _answer: Completion) -> None:
        nonlocal done
        done += 1
        on_progress(Progress(done, total, "verdicts"))

    on_progress(Progress(0, total, "verdicts"))
    with closing(engine):
        judged, asked = _ask(engine, template, terms, pairs, on_answer)
    summary: dict[str, Any] = {**description, "opponents": {}, "agreement": None, **_count_tokens(asked, terms)}
    for name in against:
        summary["opponents"][name] = summarize(pairs[name], judged[name], confidence, seed)
    if labelled:
        summary["agreement"] = measure_agreement([str(pair["winner"]) for pair in labelled], judged["labelled"])
    _write(out, summary, pairs, judged)
    return Product(len(positions), (layout.JUDGE, layout.VERDICTS), {"judge": summary})


@dataclass(frozen=True)
class Judged:
    """The verdicts on each pair in both orders, for `a` the first of the pair; None for one that was not asked."""

    verdicts: Sequence[tuple[Verdict, Verdict] | None]

    @property
    def results(self) -> list[str]:
        """`a`, `b` or `tie` for each pair that was asked: a side wins if it does in both orders."""
        return [settle(*both) for both in self.verdicts if both is not None]


def settle(forward: Verdict, backward: Verdict) -> Verdict:
    """The verdict of both orders."""
    return forward if forward == backward and forward in ("a", "b") else "tie"


def read_verdict(text: str) -> Verdict:
    """The verdict in a reply: its first word, in any case, also in quotes, bold or after `Verdict:`."""
    match = _VERDICT.match(text.strip().lstrip("*_`\"'#([ \n"))
    return match[1].lower() if match else ""  # type: ignore[return-value]


def summarize(pairs: Sequence[Pair], judged: Judged, confidence: float, seed: int) -> dict[str, Any]:
    """Wins, ties and losses of the first side, and its `score` with an interval: the share of wins, a tie being half.

    `consistent` is the share of pairs with the same verdict in both orders, `first` that of the verdicts for an answer
    that are for the one that came first: 0.5 without a bias.
    """
    results = judged.results
    scores = np.array([{"a": 1.0, "tie": 0.5, "b": 0.0}[result] for result in results])
    both = [verdicts for verdicts in judged.verdicts if verdicts is not None]
    decided = [verdict for verdicts in both for verdict in _list_firsts(verdicts)]
    draws = resample(len(scores), RESAMPLES, seed) if len(scores) else np.zeros((0, 1), np.uint8)
    figure = (scores @ draws) / draws.sum(0) if len(scores) else np.array([np.nan])
    return {
        "rows": len(results),
        "of": len(pairs),
        **{name: results.count(result) for name, result in (("wins", "a"), ("ties", "tie"), ("losses", "b"))},
        "score": share_interval(figure, confidence, len(results)),
        "consistent": sum(forward == backward for forward, backward in both) / len(both) if both else None,
        "first": sum(decided) / len(decided) if decided else None,
        "invalid": sum(verdict == "" for verdicts in both for verdict in verdicts),
    }


def measure_agreement(winners: Sequence[str], judged: Judged) -> dict[str, Any]:
    """How often the judge's result is the people's, and Cohen's kappa of the two (Educational and Psychological
    Measurement 20, 1960), which is 0 for a judge that agrees by chance alone.
    """
    people = [winner.strip().lower() for winner, both in zip(winners, judged.verdicts, strict=True) if both is not None]
    results = judged.results
    agreed = sum(map(str.__eq__, people, results))
    count = len(people)
    if not count:
        return {"rows": 0, "agreed": 0, "kappa": None}
    by_chance = sum(people.count(value) * results.count(value) for value in ("a", "b", "tie")) / count**2
    kappa = (agreed / count - by_chance) / (1 - by_chance) if by_chance < 1 else None
    return {"rows": count, "agreed": agreed, "kappa": kappa}


def _list_firsts(both: tuple[Verdict, Verdict]) -> list[bool]:
    """For each order whose verdict is an answer, whether it is the one that came first."""
    forward, backward = both
    return [verdict == first for verdict, first in ((forward, "a"), (backward, "b")) if verdict in ("a", "b")]


def _read_answers(predictions: Path, splits: Path, objective: Objective) -> pa.Table:
    """The answers of the rows that were asked, with the question: id, question, model, reference, untuned."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    prompting = objective.prompting
    if prompting is None:
        raise ValueError(f"{type(objective).__name__} does not say how it is prompted")
    table = pq.read_table(predictions / layout.PREDICTIONS)
    table = table.filter(pc.is_valid(table["untuned"]))
    rows = pq.read_table(splits / layout.rows_file(TEST))
    rows = take_rows(rows, pc.index_in(table["id"], value_set=rows["id"]).to_numpy())
    columns = {name: table[name] for name in ("id", "reference", "untuned")}
    return pa.table({**columns, "model": table["prediction"], "question": prompting.build_questions(rows)})


def _draw_rows(rows: int, limit: int | None, seed: int) -> np.ndarray:
    positions = list(range(rows))
    random.Random(seed).shuffle(positions)
    return np.array(positions[:limit], np.int64)


def _build_pairs(rows: pa.Table, opponent: str) -> list[Pair]:
    return [
        Pair(str(row["id"]), row["question"], row["model"], row[opponent])
        for row in rows.select(["id", "question", "model", opponent]).to_pylist()
    ]


def _read_labelled(rows: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """The labelled pairs; raises DataError for one without a text column or another winner than a, b or tie."""
    pairs = []
    for number, row in enumerate(rows):
        texts = [row.get(name) for name in COLUMNS[:3]]
        winner = str(row.get("winner")).strip().lower()
        if not all(isinstance(text, str) and text.strip() for text in texts) or winner not in ("a", "b", "tie"):
            raise DataError(
                f"is no pair with {', '.join(COLUMNS[:3])} and winner a, b or tie",
                where=f"evaluation.judge.labelled, row {number}",
                fix="Correct the row.",
            )
        question, first, second = map(str, texts)
        pairs.append(Pair(str(number), question, first, second))
    return pairs


def _ask(
    engine: Engine,
    template: Template,
    terms: Terms,
    pairs: Mapping[str, Sequence[Pair]],
    on_answer: Callable[[int, Completion], None],
) -> tuple[dict[str, Judged], Asked]:
    """The verdicts on all pairs, in both orders. Equal answers are a tie that nobody is asked."""
    prompts = [
        prompt
        for of_name in pairs.values()
        for pair in of_name
        if not pair.is_equal
        for prompt in _render_both(template, pair)
    ]
    asked = ask_in_book(engine, prompts, terms, on_answer)
    replies = iter(asked.answers)
    return {name: _judge(of_name, replies) for name, of_name in pairs.items()}, asked


def _render_both(template: Template, pair: Pair) -> tuple[str, str]:
    return (
        template.fill({"question": pair.question, "first": pair.first, "second": pair.second}),
        template.fill({"question": pair.question, "first": pair.second, "second": pair.first}),
    )


def _judge(pairs: Sequence[Pair], replies: Iterator[Completion | None]) -> Judged:
    verdicts: list[tuple[Verdict, Verdict] | None] = []
    for pair in pairs:
        if pair.is_equal:
            verdicts.append(("tie", "tie"))
            continue
        forward, backward = next(replies), next(replies)
        if forward is None or backward is None:
            verdicts.append(None)
        else:
            verdicts.append((read_verdict(forward.text), _SWAPPED[read_verdict(backward.text)]))
    return Judged(verdicts)


def _count_tokens(asked: Asked, terms: Terms) -> dict[str, Any]:
    """Verdicts, tokens, and the cost, which includes requests that may have been charged without an answer."""
    answers = [answer for answer in asked.answers if answer is not None]
    inputs = sum(answer.input_tokens for answer in answers) + asked.spent[0]
    outputs = sum(answer.output_tokens for answer in answers) + asked.spent[1]
    tokens = {"input": inputs, "output": outputs}
    return {"verdicts": len(answers), "tokens": tokens, "cost": terms.cost((inputs, outputs))}


def _write(
    out: Path, summary: Mapping[str, Any], pairs: Mapping[str, Sequence[Pair]], judged: Mapping[str, Judged]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [
        {
            "against": name,
            "id": pair.name,
            "first": printable(pair.first),
            "second": printable(pair.second),
            "forward": both[0],
            "backward": both[1],
            "result": settle(*both),
        }
        for name, of_name in pairs.items()
        for pair, both in zip(of_name, judged[name].verdicts, strict=True)
        if both is not None
    ]
    names = ("against", "id", "first", "second", "forward", "backward", "result")
    pq.write_table(
        pa.Table.from_pylist(lines, pa.schema([(name, pa.string()) for name in names])),
        out / layout.VERDICTS,
        compression="zstd",
    )
    (out / layout.JUDGE).write_text(json.dumps(summary, ensure_ascii=False, indent=1), "utf8")
