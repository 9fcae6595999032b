"""What one training attempt determined and the next one reuses: `choices.json` in the work directory."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Choices:
    """Micro-batch size (0: unknown), precision ('': not chosen), and the steps from which attempts resumed."""

    micro_batch_size: int = 0
    precision: str = ""
    resumed_from: tuple[int, ...] = ()


def load_choices(out: Path) -> Choices:
    """The choices made so far in the work directory `out`."""
    file = out / "choices.json"
    if not file.is_file():
        return Choices()
    values = json.loads(file.read_text("utf8"))
    return Choices(values["micro_batch_size"], values["precision"], tuple(values["resumed_from"]))


def save_choices(out: Path, choices: Choices) -> None:
    """Save the choices; the file is replaced atomically."""
    work = out / ".choices.json"
    with work.open("w", encoding="utf8") as file:
        json.dump(dataclasses.asdict(choices), file)
        file.flush()
        os.fsync(file.fileno())
    work.rename(out / "choices.json")


def halve_micro_batch(out: Path) -> int:
    """Halve the micro-batch for the next attempt; returns its size, 0 if it was 1 or is unknown."""
    current = load_choices(out)
    if current.micro_batch_size <= 1:
        return 0
    smaller = dataclasses.replace(current, micro_batch_size=(current.micro_batch_size + 1) // 2)
    save_choices(out, smaller)
    return smaller.micro_batch_size
