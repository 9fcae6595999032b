"""The forms in which models write an answer: with quotes, a code fence or a heading around it, as JSON, as a choice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hone.objectives.shared.json_cells import load_json

_FENCE = re.compile(r"```(?:[\w+-]*[ \t]*\n)?(.*?)```", re.DOTALL)
_HEADING = "(?:labels?|outputs?|answers?)"
# Also Markdown's **Label:** x and **Label**: x.
_PREFIX = re.compile(rf"(?:\*\*{_HEADING}\s*:\s*\*\*|\*\*{_HEADING}\*\*\s*:|{_HEADING}\s*:)\s*", re.IGNORECASE)
_PAIRS = (
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
    ("“", "”"),
    ("‘", "’"),
    ("«", "»"),
)
_ODD = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029`]")


class Choices:
    """Names that an answer may be, found exactly, or else by their letters if they differ from the others' by more
    than case.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self._folded: dict[str, list[int]] = {}
        for name, index in self._index.items():
            self._folded.setdefault(name.casefold(), []).append(index)

    def find(self, readings: Sequence[str]) -> int | None:
        """The index of the first of some readings of an answer that is a name; None if none of them is."""
        exact = (self._index[reading] for reading in readings if reading in self._index)
        folded = (self._folded.get(reading.casefold(), ()) for reading in readings)
        unique = (indices[0] for indices in folded if len(indices) == 1)
        return next(exact, next(unique, None))


def write_choice(name: str) -> str:
    """A name as it is written in instructions and answers: itself, or a JSON string if it could be misread."""
    is_plain = name and name == name.strip() and not _ODD.search(name) and not name.startswith(('"', "{", "["))
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def describe_choices(names: Sequence[str]) -> str:
    """The names for an instruction, one per line, as `write_choice` writes them."""
    return "\n".join(f"- {write_choice(name)}" for name in names)


def find_choice(answer: str, choices: Choices) -> int | None:
    """The index of the name that an answer is; None if it is none, or more than one.

    The name may be on a first line of its own, if no later line is another name.
    """
    index = choices.find(list(_list_readings(answer)))
    lines = [line for line in answer.splitlines() if line.strip()]
    if index is not None or len(lines) < 2:
        return index
    first, *others = (choices.find(list(_list_readings(line))) for line in lines)
    return None if set(others) - {None, first} else first


def strip_fence(answer: str) -> str:
    """The answer without spaces around it, and without the code fence that is around all of it."""
    text = answer.strip()
    fence = _FENCE.fullmatch(text)
    return fence[1].strip() if fence else text


def strip_prefix(text: str) -> str:
    """The text without a heading such as `Answer:` at its beginning."""
    prefix = _PREFIX.match(text)
    return text[prefix.end() :] if prefix else text


def parse_answer(answer: str) -> Any:
    """The value of an answer in JSON, which may be in a code fence; raises ValueError if it is not JSON.

    Of an object with one entry that is the entry's value: models name what they are asked for.
    """
    fences = _FENCE.findall(answer)
    try:
        value = load_json(strip_prefix(answer.strip()))
    except ValueError:
        if len(fences) != 1:
            raise
        value = load_json(fences[0])
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def as_name(value: Any) -> str | None:
    """A value in JSON as a name: text without the spaces around it, or a whole number's digits; else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else None


def _list_readings(answer: str) -> Iterator[str]:
    """What an answer may stand for, from the literal text inwards; what JSON text stands for comes before the text."""
    text, previous = answer.strip(), ""
    while text and text != previous:
        if text.startswith(('"', "{")) and (name := _parse_name(text)) is not None:
            yield name
        yield text
        previous, text = text, _unwrap(text)


def _parse_name(text: str) -> str | None:
    try:
        value = parse_answer(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else as_name(value)


def _unwrap(text: str) -> str:
    """The text without what is outermost around it: a fence, marks in pairs, a heading or a full stop."""
    inner = strip_fence(text)
    if inner != text:
        return inner
    for left, right in _PAIRS:
        inside = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and inside and left not in inside and right not in inside:
            return inside.strip()
    inner = strip_prefix(text)
    return inner if inner != text else text.rstrip(".").rstrip()
