from __future__ import annotations
from dataclasses import dataclass
from typing import Any
from hone.options import option


@dataclass(frozen=True)
class Freeze:
    """Freeze."""

    x: int = option(1, "x", ge=0)
