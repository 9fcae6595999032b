"""The interface of a source: options in, raw rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RawRow:
    """One row as the source provides it. `where` locates it for people: `train.csv:17` is row 17 of that file.

    `refused` is the reason why the row cannot be used (a ragged line, malformed JSON), else ''; `values` then holds
    what could be read.
    """

    where: str
    source: str
    values: dict[str, Any]
    split: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A value that Python cannot express, in a column that may not be needed: a date in the year 150,000."""

    reason: str


def printable(text: str) -> str:
    """The text with what cannot be encoded (half of a surrogate pair, a byte of a file name) as \\ud800."""
    return text.encode("utf8", "backslashreplace").decode("utf8")


class Source(Protocol):
    """A frozen dataclass of options (`hone.parts.options.option`) that reads rows."""

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """A digest of the rows' content, if possible without reading the rows; fast, without heavy imports.

        `digest(path)` returns a local file's SHA-256, cached while the file is unchanged. Raises DataError if a file
        is missing, ServiceError if a server does not answer.
        """

    def rows(self) -> Iterator[RawRow]:
        """Every row in a fixed order, including refused rows."""
