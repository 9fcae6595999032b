"""The history of a training: exactly one JSON line for each optimizer step and each evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class History:
    """Appends to the file at `path`, which is created if it does not exist."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def cut(self, length: int) -> None:
        """Truncate the file to `length` bytes, which removes what an attempt wrote after its last checkpoint."""
        os.truncate(self._file.fileno(), length)

    def add(self, entry: dict[str, Any]) -> None:
        """Write one line."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Wait until all lines are on disk; returns the length of the file in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size


def read_losses(path: Path) -> list[float]:
    """The losses of the optimizer steps in a history file."""
    entries = map(json.loads, path.read_text("utf8").splitlines())
    return [float(entry["loss"]) for entry in entries if "loss" in entry]
