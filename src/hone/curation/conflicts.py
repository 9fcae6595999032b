from __future__ import annotations
from dataclasses import dataclass
from typing import Any
from hone.options import option


@dataclass(frozen=True)
class LabelConflicts:
    """LabelConflicts."""

    x: int = option(1, "x", ge=0)

    def apply(self, rows: Any, fields: Any, on_progress: Any) -> Any: ...
