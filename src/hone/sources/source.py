"""What every source is: options in, raw rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RawRow:
    """One row as its source has it. `where` names it for a person: `train.csv:17`, row 17 of that file.

    `refused` says why it cannot be used (a ragged line, malformed JSON); then `values` holds what there was.
    """

    where: str
    source: str
    values: dict[str, Any]
    split: str = ""
    refused: str = ""


class Source(Protocol):
    """A frozen dataclass of options (`hone.parts.options.option`) that reads rows."""

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """What the rows' content is, without reading them where that can be known; fast, imports nothing heavy.

        `digest(path)` gives a local file's SHA-256 from memory where the file has not changed. Raises DataError
        where a file is missing, ServiceError where a server does not answer.
        """

    def rows(self) -> Iterator[RawRow]:
        """Every row in a fixed order, the refused ones among them."""
