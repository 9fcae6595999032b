"""Asks each rival the test rows, and keeps the answers with what a reader must know of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import ConfigError, DataError
from hone.evaluation.rivals.asking import Asked, Terms, ask_in_book
from hone.evaluation.rivals.completion import Completion, Engine
from hone.evaluation.rivals.corpus import Corpus, Passage, split_documents
from hone.evaluation.rivals.prompts import Parts, Template, fit_prompt
from hone.evaluation.rivals.shots import Search, choose_bm25, choose_random, load_embedder
from hone.objectives.base import Objective, Targets
from hone.objectives.prompting.prompting import Prompting
from hone.progress import OnProgress, Progress, ignore
from hone.sources.source import printable
from hone.splits import TEST, TRAIN
from hone.store import layout
from hone.store.artifact import Product
from hone.store.tables import take_rows
from hone.tokenization.tokenize import read_tokens

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.sources.source import RawRow

NEXT_EXAMPLE = ("\n\nInput:", "\nInput:")  # as in prompt.jinja
UNREAD_END = "unread"  # how the answer to a prompt that is too long for the model ended
UNREAD = Completion("", "length", 0, 0, 0.0)
EMBEDDED_TOKENS = 512  # of a text, when texts are compared by embeddings


@dataclass(frozen=True)
class Library:
    """The texts in which passages are looked up: `count` of at most `words` words for each prompt."""

    rows: Callable[[], Iterable[RawRow]]
    column: str
    words: int
    overlap: int
    count: int
    choose: str


@dataclass(frozen=True)
class Contender:
    """A rival: what answers, how its prompts are made, and how many rows it is asked.

    build_engine  makes what answers, from the only possible answers, if there are any, and the texts that end one
    base          the base model's directory, for embeddings; None if none are needed
    prices        of a million tokens of prompts and of answers; None if unknown
    description   what the report says of it: its name, model, api, shots, choose and passages
    """

    name: str
    build_engine: Callable[[Sequence[str], Sequence[str]], Engine]
    template: Template
    shots: int
    choose: str
    library: Library | None
    limit: int | None
    seed: int
    prices: tuple[float, float] | None
    max_cost: float | None
    base: Path | None
    description: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """The rows of a task, and how it is put in words."""

    objective: Objective
    prompting: Prompting
    targets: Targets
    train: pa.Table
    test: pa.Table


@dataclass(frozen=True)
class Prompts:
    """The prompts of the test rows at `positions`; '' for one that does not fit, which is not asked.

    `shots` are the numbers of examples in each, and `left_out` counts the prompts that were too long for all of them.
    `is_supported` says of each whether its passages contain the answer, None without passages or where undefined.
    """

    positions: np.ndarray
    texts: Sequence[str]
    shots: Sequence[int]
    left_out: int
    passages: Sequence[Sequence[str]]
    is_supported: Sequence[bool | None]


def answer_rows(
    splits: Path,
    tokens: Path,
    out: Path,
    *,
    contenders: Sequence[Contender],
    objective: Objective,
    books: Path,
    on_progress: OnProgress = ignore,
) -> Product:
    """Ask every contender the test rows in `splits` that are in `tokens` too, as the trained model is.

    The answers go to `out`, and into the answer books in `books`.

    Writes answers.parquet, with a line for each answer, and rivals.json, with a summary of each contender. What a book
    has is not asked again. Rows are asked in a random order, so that a limit or a maximum cost leaves a random sample.

    Raises ConfigError if no prompt can ask for what the objective learns, DataError for a corpus without the column,
    and what the engines raise; the answers until then are in the books.
    """
    task = read_task(splits, tokens, objective)
    tables, summaries, done = [], [], 0
    facts: dict[str, Any] = {}
    total = sum(len(_choose_rows(task, contender)) for contender in contenders)
    on_progress(Progress(0, total))
    for contender in contenders:

        def on_answer(_index: int, _answer: Completion, name: str = contender.name) -> None:
            nonlocal done
            done += 1
            on_progress(Progress(done, total, note=f"asking {name}"))

        def on_wait(name: str = contender.name) -> None:
            on_progress(Progress(done, total, note=f"waiting for another run that asks {name}"))

        on_progress(Progress(done, total, note=f"preparing prompts for {contender.name}"))
        table, summary, facts[contender.name] = _answer(task, contender, books, on_answer, on_wait)
        tables.append(table)
        summaries.append(summary)
    _write(out, tables, summaries)
    return Product(sum(map(len, tables)), (layout.ANSWERS, layout.RIVALS), {"rivals": facts})


def read_task(splits: Path, tokens: Path, objective: Objective) -> Task:
    """The task, with the test rows that the trained model answers."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    prompting = objective.prompting
    if prompting is None:
        raise ConfigError("no prompt can ask for what the objective learns", where="evaluation.rivals")
    train, test = (pq.read_table(splits / layout.rows_file(split)) for split in (TRAIN, TEST))
    encoded = read_tokens(tokens / layout.tokens_file(TEST))
    selected = prompting.select_rows(encoded)
    ids = encoded["id"] if selected is None else encoded["id"].filter(pa.array(selected))
    comparable = test.filter(pc.is_in(test["id"], value_set=ids))
    return Task(objective, prompting, objective.build_targets(train), train, comparable)


def _choose_rows(task: Task, contender: Contender) -> np.ndarray:
    """The positions of the test rows to ask, in random order."""
    positions = list(range(len(task.test)))
    random.Random(contender.seed).shuffle(positions)
    return np.array(positions[: contender.limit], np.int64)


def _answer(
    task: Task,
    contender: Contender,
    books: Path,
    on_answer: Callable[[int, Completion], None],
    on_wait: Callable[[], None],
) -> tuple[pa.Table, dict[str, Any], dict[str, Any]]:
    """The answers, their summary, and facts for the manifest."""
    with closing(contender.build_engine(task.prompting.list_choices(task.targets), _list_stops(task))) as engine:
        prompts = build_prompts(task, contender, engine.fits)
        terms = Terms(books, contender.prices, contender.max_cost)
        asked = ask_in_book(engine, [text for text in prompts.texts if text], terms, on_answer, on_wait)
    table, summary = _build_table(task, contender, prompts, asked), _summarize(contender, prompts, asked)
    facts = {"answered": len(table), "from_book": asked.from_book, "stopped": asked.stopped, "notes": list(asked.notes)}
    return table, summary, facts


def _list_stops(task: Task) -> tuple[str, ...]:
    """The texts at which a model that continues a prompt has written its answer: a line's end, if answers have none."""
    answers = task.prompting.build_answers(task.train, task.targets)
    return NEXT_EXAMPLE if any("\n" in answer for answer in answers) else ("\n",)


def build_prompts(task: Task, contender: Contender, fits: Callable[[str], bool]) -> Prompts:
    """The prompts of the rows that the contender is asked, with as many examples as `fits` allows."""
    prompting, positions = task.prompting, _choose_rows(task, contender)
    rows, search = take_rows(task.test, positions), _Searches(contender.base)
    is_open = contender.library is not None
    ask = prompting.build_open_questions if is_open else prompting.build_questions
    questions, examples = ask(rows), _choose_examples(task, contender, ask, rows, search)
    passages = _retrieve(task, contender.library, rows, search) if contender.library else [[] for _ in questions]
    instruction = prompting.describe_task(task.targets)
    pairs = [
        fit_prompt(Parts(instruction, shots, row_passages, question), contender.template.render, fits)
        for question, shots, row_passages in zip(questions, examples, passages, strict=True)
    ]
    texts, shots_used = [text for text, _ in pairs], [used for _, used in pairs]
    left_out = sum(used < len(shots) for (text, used), shots in zip(pairs, examples, strict=True) if text)
    is_supported = prompting.find_support(rows, passages) if is_open else [None] * len(texts)
    return Prompts(positions, texts, shots_used, left_out, passages, is_supported)


def _choose_examples(
    task: Task, contender: Contender, ask: Callable[[pa.Table], list[str]], rows: pa.Table, search: _Searches
) -> list[list[dict[str, str]]]:
    """The examples of each row, the nearest one last."""
    count, queries = min(contender.shots, len(task.train)), task.prompting.build_queries(rows)
    if not count:
        return [[] for _ in queries]
    if contender.choose == "random":
        strata = task.objective.strata(task.train)
        chosen = choose_random(len(task.train), count, contender.seed, strata)
        nearest = np.tile(np.array(chosen, np.int64), (len(queries), 1))
    else:
        nearest = search.get(contender.choose)(task.prompting.build_queries(task.train), queries, count)
    numbers, places = np.unique(nearest, return_inverse=True)
    sources = take_rows(task.train, numbers)
    pairs = zip(ask(sources), task.prompting.build_answers(sources, task.targets), strict=True)
    shots = [{"question": question, "answer": answer} for question, answer in pairs]
    return [[shots[place] for place in row] for row in places.reshape(nearest.shape)]


def _retrieve(task: Task, library: Library, rows: pa.Table, search: _Searches) -> list[list[str]]:
    """The passages of each row, the nearest one last."""
    passages = split_documents(_read_documents(library), library.words, library.overlap)
    if not passages:
        raise DataError("has no text", where="the corpus of evaluation.rivals", fix="Check its source.")
    queries = task.prompting.build_queries(rows)
    retrieved: list[list[Passage]] = Corpus(passages, search.get(library.choose)).retrieve(queries, library.count)
    return [[passage.text for passage in of_row] for of_row in retrieved]


def _read_documents(library: Library) -> Iterable[tuple[str, str]]:
    """The place and the text of each of the corpus's rows."""
    for row in library.rows():
        text = row.values.get(library.column)
        if row.refused or not isinstance(text, str):
            reason = row.refused or f"has no text in the column {library.column}"
            raise DataError(reason, where=row.where, fix="Correct the row, or the corpus's column (text).")
        yield row.where, text


class _Searches:
    """Searches by name; the base model is loaded when the first one needs it."""

    def __init__(self, base: Path | None) -> None:
        self._base = base
        self._nearest: Search | None = None

    def get(self, name: str) -> Search:
        """The search `bm25` or `nearest`."""
        if name == "bm25":
            return choose_bm25
        if self._nearest is None:
            if self._base is None:
                raise ValueError("nearest texts need the base model")
            self._nearest = load_embedder(self._base, EMBEDDED_TOKENS).choose
        return self._nearest


def _build_table(task: Task, contender: Contender, prompts: Prompts, asked: Asked) -> pa.Table:
    """A line for each answer, in the order of the test rows; an empty one for a row that is too long for the model."""
    import pyarrow as pa

    lines, answers = [], iter(asked.answers)
    ids = task.test["id"].to_pylist()
    for place, position in enumerate(prompts.positions.tolist()):
        answer = next(answers) if prompts.texts[place] else UNREAD
        if answer is None:
            continue
        line = {
            "rival": contender.name,
            "id": str(ids[position]),
            "answer": printable(answer.text),
            "ended": UNREAD_END if answer is UNREAD else answer.ended,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "seconds": None if answer is UNREAD else answer.seconds,
            "shots": prompts.shots[place],
            "supported": prompts.is_supported[place],
            "passages": prompts.passages[place] if contender.library else None,
        }
        lines.append((position, line))
    lines.sort(key=lambda entry: int(entry[0]))
    schema = [("rival", pa.string()), ("id", pa.string()), ("answer", pa.string()), ("ended", pa.string())]
    schema += [("input_tokens", pa.int64()), ("output_tokens", pa.int64()), ("seconds", pa.float64())]
    schema += [("shots", pa.int64()), ("supported", pa.bool_()), ("passages", pa.list_(pa.string()))]
    return pa.Table.from_pylist([line for _, line in lines], pa.schema(schema))


def _summarize(contender: Contender, prompts: Prompts, asked: Asked) -> dict[str, Any]:
    example = next(filter(None, prompts.texts), "")
    return {
        "name": contender.name,
        **contender.description,
        "stopped": asked.stopped,
        "retries": dict(asked.retries),
        "unanswered": dict(zip(("input", "output"), asked.spent, strict=True)),
        "left_out": prompts.left_out,
        "example": printable(example),
    }


def _write(out: Path, tables: Sequence[pa.Table], summaries: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.concat_tables(tables), out / layout.ANSWERS, compression="zstd")
    (out / layout.RIVALS).write_text(json.dumps(summaries, ensure_ascii=False, indent=1), "utf8")
