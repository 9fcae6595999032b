from __future__ import annotations
from dataclasses import dataclass
from collections.abc import Callable, Iterator
from pathlib import Path
from hone.options import option, REQUIRED
from hone.sources.source import RawRow


@dataclass(frozen=True)
class Sql:
    """Sql."""

    x: int = option(1, "x", ge=0)

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        return ""

    def rows(self) -> Iterator[RawRow]:
        yield from ()
