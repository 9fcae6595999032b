from __future__ import annotations
from dataclasses import dataclass
from hone.options import option


@dataclass(frozen=True)
class TextClassification:
    """c"""

    label_smoothing: float = option(0.0, "x", ge=0)
