"""What one training attempt determined and the next one reuses: `choices.json` in the work directory."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from hone.store.files import replace_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """Micro-batch size (0: unknown), precision ('': not chosen), and the steps from which attempts resumed."""

    micro_batch_size: int = 0
    precision: str = ""
    resumed_from: tuple[int, ...] = ()


def load_choices(out: Path) -> Choices:
    """The choices made so far in the work directory `out`; none if the file is damaged: they are made again."""
    try:
        values = json.loads((out / "choices.json").read_text("utf8"))
        choices = Choices(values["micro_batch_size"], values["precision"], tuple(values["resumed_from"]))
        if not (isinstance(choices.precision, str) and all(map(_is_count, _list_numbers(choices)))):
            raise ValueError("other types")
        return choices
    except FileNotFoundError:
        return Choices()
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s is damaged: micro-batch size and precision are chosen again", out / "choices.json")
        return Choices()


def _list_numbers(choices: Choices) -> tuple[int, ...]:
    return choices.micro_batch_size, *choices.resumed_from


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def save_choices(out: Path, choices: Choices) -> None:
    """Save the choices; the file is replaced atomically."""
    with replace_file(out / "choices.json") as work:
        work.write_text(json.dumps(dataclasses.asdict(choices)), "utf8")


def halve_micro_batch(out: Path) -> int:
    """Halve the micro-batch for the next attempt; returns its size, 0 if it was 1 or is unknown."""
    current = load_choices(out)
    if current.micro_batch_size <= 1:
        return 0
    smaller = dataclasses.replace(current, micro_batch_size=(current.micro_batch_size + 1) // 2)
    save_choices(out, smaller)
    return smaller.micro_batch_size
