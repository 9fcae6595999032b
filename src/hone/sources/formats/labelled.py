"""Forms of text with a label: lines that begin with it, JSON of [text, label] by split, folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from hone.errors import DataError
from hone.sources.formats.places import NUL, split_lines
from hone.splits import get_split

FASTTEXT = "__label__"
_FASTTEXT_LABELS = re.compile(rf"(?:{FASTTEXT}\S+\s+)*(?:{FASTTEXT}\S+)?")
_HIVE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

PAIR = ("text", "label")


def read_labelled(text: Iterable[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Read a row per line: its label, a space or a tab, and its text, as TREC and SST write it; or fastText's labels.

    fastText's `__label__x __label__y text` gives the column `labels`, and `label` where there is a single one. A line
    without a label or a text is refused; empty lines are skipped.
    """
    for number, line in enumerate(split_lines(text), 1):
        plain = line.rstrip("\r\n")
        if not plain.strip():
            continue
        if "\0" in plain:
            yield {"line": plain}, NUL
            continue
        values = _fasttext(plain) if plain.startswith(FASTTEXT) else _first_word(plain)
        yield (values, "") if values.get("text") else ({"line": plain}, f"a label without a text: line {number}")


def read_file(text: Iterable[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Read a whole file as one row, with line feeds as line ends."""
    whole = "".join(text).replace("\r\n", "\n").strip("\n")
    yield {"text": whole}, NUL if "\0" in whole else ""


def find_folder_columns(path: str) -> dict[str, str | None]:
    """The columns that the folders of a path give, such as `label=pos/`, which Hive and Spark write."""
    *folders, _ = path.split("/")
    matches = [match for folder in folders if (match := _HIVE.fullmatch(folder))]
    return {match[1]: None if match[2] == _HIVE_NULL else unquote(match[2]) for match in matches}


def is_split_object(value: Any, keys: Mapping[str, str]) -> bool:
    """Whether a JSON object holds a list for each split, by its keys (or because `keys` were asked for)."""
    if not isinstance(value, dict) or not value or not all(isinstance(rows, list) for rows in value.values()):
        return False
    return bool(keys) or any(get_split(name) and _are_rows(rows) for name, rows in value.items())


def read_split_object(
    value: Mapping[str, list[Any]], keys: Mapping[str, str], names: Sequence[str], shown: str
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Read the rows of each split and its name: objects, or lists such as [text, label] in the order of `names`.

    `keys` has the key of each split; other keys are left out. Raises DataError if it has none for a key that is not the
    name of a split, or a key that is not there.
    """
    missing = [key for key in keys.values() if key not in value]
    unknown = [key for key in value if not keys and not get_split(key)]
    if missing or unknown:
        problem = f"has no key {missing[0]!r}" if missing else f"its keys {', '.join(unknown)} are not names of splits"
        raise DataError(
            f"{problem}; it has {', '.join(value)}",
            where=shown,
            fix="Set ingest.source.split_keys to the keys to read: {train: train, valid: val, test: test}.",
        )
    for split, key in keys.items() if keys else [(get_split(key), key) for key in value]:
        for item in value[key]:
            if isinstance(item, dict):
                yield item, "", split
            elif isinstance(item, list) and len(item) == len(names):
                yield dict(zip(names, item, strict=True)), "", split
            else:
                yield {"value": item}, f"neither an object nor [{', '.join(names)}]", split


def _are_rows(rows: Sequence[Any]) -> bool:
    return all(isinstance(row, list | dict) for row in rows)


def _first_word(line: str) -> dict[str, Any]:
    label, *text = line.split(maxsplit=1)
    return {"label": label, "text": text[0].rstrip() if text else ""}


def _fasttext(line: str) -> dict[str, Any]:
    match = _FASTTEXT_LABELS.match(line)
    prefix = match[0] if match else ""
    labels = [label.removeprefix(FASTTEXT) for label in prefix.split()]
    values: dict[str, Any] = {"labels": labels, "text": line[len(prefix) :].strip()}
    return values | ({"label": labels[0]} if len(labels) == 1 else {})
