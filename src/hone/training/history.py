"""The history of a training: exactly one JSON line for each optimizer step and each evaluation.

It is what is shown of a training, not what it resumes from: damaged lines are left out and counted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hone.store.files import replace_file


class History:
    """Appends to the file at `path`, which is created if it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("ab")

    def cut(self, length: int) -> None:
        """Truncate the file to `length` bytes, which removes what an attempt wrote after its last checkpoint.

        If it has lost its end, the next line begins a new one after what is left.
        """
        content = self._path.read_bytes()[:length]
        os.truncate(self._file.fileno(), len(content))
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")

    def add(self, entry: dict[str, Any]) -> None:
        """Write one line."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Wait until all lines are on disk; returns the length of the file in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size


def clean_history(path: Path) -> list[float]:
    """The losses of the optimizer steps in a finished history; lines that cannot be read are removed from the file."""
    lines = path.read_bytes().splitlines()
    entries = [(line, entry) for line in lines if (entry := _read_line(line))]
    if len(entries) < len(lines):
        with replace_file(path) as work:
            work.write_bytes(b"".join(line + b"\n" for line, _ in entries))
    return [float(entry["loss"]) for _, entry in entries if "loss" in entry]


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The entries of a history, without lines that cannot be read; [] if there is no file."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [entry for line in lines if (entry := _read_line(line))]


def _read_line(line: bytes) -> dict[str, Any]:
    """The entry of a line; {} if it is none."""
    try:
        entry = json.loads(line)
        numbers = [entry["step"], entry.get("loss", 0.0), entry.get("valid_loss", 0.0)]
        is_read = all(isinstance(number, int | float) for number in numbers)
        return entry if is_read and list(map(float, numbers)) else {}  # OverflowError: a number of 400 digits
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
