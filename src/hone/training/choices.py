"""What an attempt at training found out and the next must not ask again: `choices.json` in the work directory."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Choices:
    """Rows at once (0: not found yet), precision ('': not chosen yet), and the steps that attempts went on from."""

    micro_batch_size: int = 0
    precision: str = ""
    resumed_from: tuple[int, ...] = ()


def load_choices(out: Path) -> Choices:
    """The choices made so far in the work directory `out`."""
    file = out / "choices.json"
    if not file.is_file():
        return Choices()
    found = json.loads(file.read_text("utf8"))
    return Choices(found["micro_batch_size"], found["precision"], tuple(found["resumed_from"]))


def save_choices(out: Path, choices: Choices) -> None:
    """Keep the choices; the file is replaced at once."""
    work = out / ".choices.json"
    with work.open("w", encoding="utf8") as file:
        json.dump(dataclasses.asdict(choices), file)
        file.flush()
        os.fsync(file.fileno())
    work.rename(out / "choices.json")


def halve_micro_batch(out: Path) -> int:
    """Halve the micro-batch for the next attempt; gives its rows, 0 where it had one row or was not found yet."""
    made = load_choices(out)
    if made.micro_batch_size <= 1:
        return 0
    smaller = dataclasses.replace(made, micro_batch_size=(made.micro_batch_size + 1) // 2)
    save_choices(out, smaller)
    return smaller.micro_batch_size
