"""Which objective is tried with which families and methods, on what rows; and the tables of it in docs/families.md.

A line of CASES is all that a new objective needs here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.methods import METHODS as BY_KIND
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.tokenization.tokenize import tokenize
from tests.tiny_bases import FAMILIES, WORDS, tiny
from tests.tiny_training import without_dropout

Row = Mapping[str, str]

LINE = "line"
LONGEST = 24  # tokens of a row
ENCODERS = ("bert", "roberta", "xlnet")
PAIRS = ("t5", "bart")
DECODERS = ("gpt2", "llama", "mistral", "phi", "gemma", "olmo", "qwen")
# What fits models of two layers and texts of a few words; a method that is not named here is tried without options.
OPTIONS: dict[str, dict[str, Any]] = {
    "freeze": {"layers": 1},
    "lora": {"rank": 2},
    "qlora": {"rank": 2},
    "prompt": {"virtual_tokens": 3},
    "prefix": {"virtual_tokens": 3},
}
METHODS = {kind: OPTIONS.get(kind, {}) for kind in BY_KIND.built_in}


def coloured(count: int) -> list[Row]:
    """Sentences of one to eight random words with a colour, which is the label."""
    draw, colours = random.Random(3), ("red", "green", "blue")
    others = [word for word in WORDS if word not in colours]
    rows = [{"text": [*draw.choices(others, k=draw.randint(0, 7)), colours[i % 3]]} for i in range(count)]
    return [{"text": " ".join(row["text"]), "label": row["text"][-1]} for row in rows]


def several(count: int) -> list[Row]:
    """The same with a list of labels: the colour, perhaps a second one."""
    return [
        {"text": row["text"], "labels": json.dumps([row["label"]] + ["lost"] * ("lost" in row["text"]))}
        for row in coloured(count)
    ]


def counted(count: int) -> list[Row]:
    """The same with a number: how many words there are."""
    return [{"text": row["text"], "label": str(len(row["text"].split()))} for row in coloured(count)]


def tagged(count: int) -> list[Row]:
    """The same with a tag for each word: the colour is an entity."""
    found = [row["text"].split() for row in coloured(count)]
    return [
        {"tokens": json.dumps(words), "tags": json.dumps(["O"] * (len(words) - 1) + ["B-colour"])} for words in found
    ]


def asked(count: int) -> list[Row]:
    """Questions which colour there is in the same sentences, and some without one."""
    rows = []
    for number, row in enumerate(coloured(count)):
        there = number % 4 < 3
        context = row["text"] if there else row["text"].rpartition(" ")[0] or "the card"
        answers = {"text": [row["label"]], "answer_start": [context.rindex(row["label"])]} if there else NO_ANSWER
        rows.append({"question": "where is the word", "context": context, "answers": json.dumps(answers)})
    return rows


NO_ANSWER: dict[str, list[Any]] = {"text": [], "answer_start": []}


def plain(count: int) -> list[Row]:
    """The same sentences and nothing else."""
    return [{"text": row["text"]} for row in coloured(count)]


def paired(count: int) -> list[Row]:
    """The same sentences, each with its last word."""
    return [
        {"anchor": row["text"], "positive": f"the {row['label']} word", "negatives": "[]"} for row in coloured(count)
    ]


def rewritten(count: int) -> list[Row]:
    """The same sentences to be written as their last word, twice."""
    return [{"text": row["text"], "target": f"{row['label']} {row['label']}"} for row in coloured(count)]


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def talked(count: int) -> list[Row]:
    """The same sentences, answered with their last word."""
    turns = [[_turn("user", row["text"]), _turn("assistant", row["label"])] for row in coloured(count)]
    return [{"messages": json.dumps(each)} for each in turns]


def preferred(count: int) -> list[Row]:
    """The same sentences; their last word is the better answer."""
    return [
        {
            "prompt": json.dumps([_turn("user", row["text"])]),
            "chosen": json.dumps([_turn("assistant", row["label"])]),
            "rejected": json.dumps([_turn("assistant", "money please")]),
        }
        for row in coloured(count)
    ]


@dataclass(frozen=True)
class Case:
    """An objective, the families it is for, `rows(count)` for it, its options, and the methods it is tried with."""

    objective: str
    families: Sequence[str]
    rows: Callable[[int], Sequence[Row]]
    options: Mapping[str, Any] = field(default_factory=dict)
    methods: Sequence[str] = ("full", "lora")

    def build(self) -> Objective:
        """The objective."""
        return OBJECTIVES[self.objective](**self.options)


ALL = (*ENCODERS, *PAIRS, *DECODERS)
CASES = (
    Case("text-classification", ALL, coloured, methods=tuple(METHODS)),
    Case("multi-label-classification", ALL, several),
    Case("regression", ALL, counted),
    Case("token-classification", ENCODERS, tagged),
    Case("question-answering", ENCODERS, asked, {"stride": 2}),
    Case("masked-lm", ENCODERS, plain, {"masked": 0.4}),
    Case("embedding", ENCODERS, paired),
    Case("causal-lm", DECODERS, plain, {"max_new_tokens": 2}),
    Case("chat", DECODERS, talked, {"packing": True, "generate": 2, "max_new_tokens": 2}),
    Case("preference", DECODERS, preferred, {"answer_tokens": 2}),
    Case("seq2seq", PAIRS, rewritten, {"max_target_length": 4}),
    Case("span-corruption", PAIRS, plain, {"max_new_tokens": 2, "noise": 0.4}),
)
LINES = [(case, family) for case in CASES for family in case.families]
CELLS = [(case, family, method) for case, family in LINES for method in case.methods]
# Where there is no such head, or no such token.
REFUSED = {("masked-lm", "xlnet"), ("span-corruption", "bart")}
TALK = "{% for turn in messages %}{{ turn.role + ' ' + turn.content + ' ' + eos_token + ' ' }}{% endfor %}"
TEMPLATE = TALK + "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"


def short_cells() -> set[tuple[str, str, str]]:
    """The (objective, family, method) that every run tries.

    Each family with each method, each objective with each of its own methods and with two families of its kind, and all
    that is refused for its objective.
    """
    chosen = {(case.objective, *refused) for case, *refused in CELLS if (case.objective, refused[0]) in REFUSED}
    seen: set[tuple[str, str]] = set()
    for case, family, method in sorted(CELLS, key=lambda cell: -len(cell[0].methods)):
        if (family, method) not in seen:
            seen.add((family, method))
            chosen.add((case.objective, family, method))
    for number, case in enumerate(CASES):
        families = [family for family in case.families if (case.objective, family) not in REFUSED]
        for offset, method in enumerate(case.methods):
            chosen.add((case.objective, families[(number + offset) % len(families)], method))
    return chosen


def short_lines() -> set[tuple[str, str]]:
    """The (objective, family) whose whole line every run tries: each objective and each family once or more."""
    chosen = set(REFUSED)
    rest = set(ALL)
    for case in sorted(CASES, key=lambda case: len(case.families)):
        families = [family for family in case.families if (case.objective, family) not in REFUSED]
        family = next((family for family in families if family in rest), families[0])
        rest.discard(family)
        chosen.add((case.objective, family))
    [everything, *_] = CASES
    return chosen | {(everything.objective, family) for family in rest}


def base_of(family: str, place: Path) -> Path:
    """A base model of the family, without dropout."""
    words = [*WORDS, "user", "assistant"]
    return without_dropout(tiny(family, place, words=words, template=TEMPLATE if family in DECODERS else ""))


def configuration(case: Case, base: Path, place: Path) -> dict[str, Any]:
    """That of a whole line on 60 rows, a file in `place`."""
    rows = [{name: _value(text) for name, text in row.items()} for row in case.rows(60)]
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf8")
    return {
        "name": case.objective,
        "objective": {"kind": case.objective, **case.options},
        "ingest": {"source": {"kind": "files", "paths": [str(place / "rows.jsonl")]}},
        "curation": {"steps": [{"kind": "normalize"}], "split": {"valid": 0.2, "test": 0.2, "near_duplicate": 1.0}},
        "validation": {"on_failure": "warn"},
        "model": {"base": str(base)},
        "tokenization": {"max_length": LONGEST, "max_truncated": 1.0, "max_dropped": 0.5},
        "training": {"epochs": 1, "batch_size": 6, "learning_rate": 1.0e-2, "device": "cpu", "precision": "fp32"},
        "evaluation": {"resamples": 100, "slices": []},
    }


def _value(text: str) -> Any:
    return json.loads(text) if text.startswith(("[", "{")) else text


def make(case: Case, family: str, place: Path) -> tuple[Path, Path]:
    """A base model without dropout of the family, and the tokens of 24 rows, as the tokenize stage makes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = base_of(family, place / "base")
    rows, splits, tokens = case.rows(24), place / "splits", place / "tokens"
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]}
    table = pa.table({"id": pa.array([f"rows:{i}" for i in range(len(rows))], pa.string()), **columns})
    splits.mkdir()
    tokens.mkdir()
    for split, part in (("train", table.slice(0, 12)), ("valid", table.slice(12, 6)), ("test", table.slice(18))):
        pq.write_table(part, splits / f"{split}.parquet")
    tokenize(splits, tokens, base=base, objective=case.build(), max_length=LONGEST, max_truncated=0.0)
    return base, tokens


def table(results: Mapping[tuple[str, str, str], str]) -> str:
    """The page of the results: `yes`, `merged`, `on its base` or `no: the reason`, by (objective, family, method).

    With LINE in place of a method it is the result of a whole line.
    """
    objectives = "".join(f" {case.objective} |" for case in CASES)
    parts = [_HEAD, f"| family | model |{objectives}", "| --- | --- |" + " --- |" * len(CASES)]
    reasons: dict[str, int] = {}
    for family in ALL:
        cells = [_both(results, case, family, reasons) for case in CASES]
        parts.append(f"| {family} | {FAMILIES[family].model} | {' | '.join(cells)} |")
    parts += [*_numbered(reasons), _METHODS]
    [case, *_] = CASES
    parts += [f"| family | {' | '.join(METHODS)} |", "| --- |" + " --- |" * len(METHODS)]
    reasons = {}
    for family in ALL:
        cells = [_cell(results[case.objective, family, method], reasons) for method in METHODS]
        parts.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join(parts + _numbered(reasons)).rstrip() + "\n"


def list_refusals(page: str) -> dict[str, set[str]]:
    """The families that each method on the page refuses."""
    header, _, *lines = (line for line in page.partition("\n## Methods\n")[2].splitlines() if line.startswith("|"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = enumerate(header.strip("| ").split(" | "))
    return {name: {row[0] for row in rows if row[place].startswith("no")} for place, name in columns if place}


def _both(results: Mapping[tuple[str, str, str], str], case: Case, family: str, reasons: dict[str, int]) -> str:
    """How the family did at an objective in full, with LoRA and on the whole line: one word where that is well."""
    if family not in case.families:
        return ""
    words = [_cell(results[case.objective, family, method], reasons) for method in ("full", "lora", LINE)]
    return "yes" if words == ["yes", "merged", "yes"] else ", ".join(dict.fromkeys(words))


def _cell(result: str, reasons: dict[str, int]) -> str:
    word, _, why = result.partition(": ")
    return f"{word} ({reasons.setdefault(why, len(reasons) + 1)})" if why else word


def _numbered(reasons: Mapping[str, int]) -> list[str]:
    return ["", *(f"{number}. {reason}" for reason, number in reasons.items())]


_HEAD = """# Families

Written by `pytest tests/unit/families --write-families`. Without the option the test fails where this is out of date.

Each cell stands for trainings of a tiny randomly initialised model of the real architecture on tokens of the tokenize
stage, saved, loaded as it is served, and asked. Each row must get the same scores alone and in a padded batch: so
padding on the wrong side is seen, positions counted from the padding, and a padding token that is not there.

## Objectives

- `yes`: the model trained in full scores the test rows after it was saved and loaded as it did before; of LoRA the
  merged weights score them as the adapter on its base does, to 1e-4; and the whole line, from a file of rows through
  curation, validation, tokenization, training and evaluation, gives a registered version that MLflow loads and that
  answers.
- `no`: refused, with the reason below the table.
- Empty: an objective for models of another kind.
"""
_METHODS = """
## Methods

For text-classification:

- `yes`: the saved model answers as it did before.
- `merged`: so it does, and scores the test rows as the adapter on its base does, to 1e-4.
- `on its base`: the adapter cannot be merged; it is evaluated, registered and served on its base model.
- `no`: refused before training, with the reason below the table.
"""
