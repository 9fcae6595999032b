from __future__ import annotations
from dataclasses import dataclass
from typing import Any
from hone.options import option


@dataclass(frozen=True)
class Full:
    """Full."""

    x: int = option(1, "x", ge=0)
