"""JSON in a cell of a row, as files write lists and mappings."""

from __future__ import annotations

import json
from typing import Any


def load_json(text: str) -> Any:
    """The value of a text in JSON. Raises ValueError if it is none, or is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
