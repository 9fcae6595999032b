"""The history of a training: one JSON line for each optimizer step and each evaluation, none twice, none lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class History:
    """Appends to the file at `path`, which is begun if it is not there."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def cut(self, length: int) -> None:
        """Take off all after `length` bytes: what an attempt wrote after its last checkpoint."""
        os.truncate(self._file.fileno(), length)

    def add(self, entry: dict[str, Any]) -> None:
        """Write one line."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Wait until all lines are on the disk; gives the length of the file in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size
