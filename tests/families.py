"""Which objective is tried with which families and methods, on what rows; and the table of it in docs/families.md.

A row of CASES is all that a new objective needs here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.objectives import OBJECTIVES
from hone.objectives.objective import Objective
from hone.objectives.tokenizer import load_tokenizer
from tests.tiny_bases import FAMILIES, WORDS, tiny

Row = Mapping[str, str]

ENCODERS = ("bert", "roberta", "xlnet")
PAIRS = ("t5", "bart")
DECODERS = ("gpt2", "llama", "mistral", "phi", "gemma", "olmo", "qwen")
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "freeze": {"layers": 1},
    "lora": {"rank": 2},
    "qlora": {"rank": 2},
    "ia3": {},
    "prompt": {"virtual_tokens": 3},
    "prefix": {"virtual_tokens": 3},
}


def coloured(count: int) -> list[Row]:
    """Sentences of one to eight random words with a colour, which is the label."""
    draw, colours = random.Random(3), ("red", "green", "blue")
    others = [word for word in WORDS if word not in colours]
    rows = [{"text": [*draw.choices(others, k=draw.randint(0, 7)), colours[i % 3]]} for i in range(count)]
    return [{"text": " ".join(row["text"]), "label": row["text"][-1]} for row in rows]


@dataclass(frozen=True)
class Case:
    """An objective, the families it is for, and `rows(count)` for it."""

    objective: str
    families: Sequence[str]
    rows: Callable[[int], Sequence[Row]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Objective:
        """The objective."""
        return OBJECTIVES[self.objective](**self.options)


CASES = (Case("text-classification", (*ENCODERS, *PAIRS, *DECODERS), coloured),)


def make(case: Case, family: str, place: Path) -> tuple[Path, Path]:
    """A base model without dropout of the family, and the tokens of 24 rows, as the tokenize stage leaves them."""
    import pyarrow as pa

    base, tokens = tiny(family, place / "base"), place / "tokens"
    file = base / "config.json"
    config = json.loads(file.read_text("utf8"))
    still = {name: 0.0 for name in config if "dropout" in name or name.endswith("_pdrop") or name == "drop_rate"}
    file.write_text(json.dumps(config | still), "utf8")
    objective, tokenizer, rows = case.build(), load_tokenizer(base), case.rows(24)
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in objective.columns}
    table = pa.table({"id": pa.array([f"rows:{i}" for i in range(len(rows))], pa.string()), **columns})
    targets = objective.targets(table)
    tokens.mkdir()
    (tokens / "targets.json").write_text(json.dumps(targets), "utf8")
    for split, part in (("train", table.slice(0, 12)), ("valid", table.slice(12, 6)), ("test", table.slice(18))):
        encoded = objective.encode(part, tokenizer, 16, targets)
        with pa.ipc.new_file(tokens / f"{split}.arrow", encoded.schema) as sink:
            sink.write_table(encoded)
    return base, tokens


def table(results: Mapping[tuple[str, str, str], str]) -> str:
    """docs/families.md, from what came of each (objective, family, method): a word, or `no: why`."""
    parts = [_HEAD]
    for case in CASES:
        parts += [f"\n## {case.objective}\n", f"| family | model | {' | '.join(METHODS)} |"]
        parts.append("| --- | --- |" + " --- |" * len(METHODS))
        reasons: dict[str, int] = {}
        for family in case.families:
            cells = [_cell(results[case.objective, family, method], reasons) for method in METHODS]
            parts.append(f"| {family} | {FAMILIES[family].model} | {' | '.join(cells)} |")
        parts += [""] + [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join(parts).rstrip() + "\n"


def _cell(result: str, reasons: dict[str, int]) -> str:
    word, _, why = result.partition(": ")
    return f"{word} ({reasons.setdefault(why, len(reasons) + 1)})" if why else word


_HEAD = """# Families

Written by `pytest tests/unit/families --write-families`. Without the option the test fails where this is out of date.

Each cell is a training of a tiny randomly initialised model of the real architecture, saved, loaded as it is served,
and asked. Each row must get the same scores alone and in a padded batch: so padding on the wrong side is seen,
positions counted from the padding, and a padding token that is not there.

- `yes`: the saved model answers.
- `merged`: so it does, and scores the test rows as the adapter on its base does, to 1e-4.
- `on its base`: the adapter cannot be merged; it is evaluated, registered and served on its base model.
- `no`: refused before training, with the reason below the table."""
