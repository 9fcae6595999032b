"""Pickles among files: to read one is to run what it says, and it names modules by their path."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

PROTOCOL = 0x80  # the first byte of a pickle; the second is the protocol's number


def find_pickles(folder: Path) -> list[Path]:
    """The files below `folder` that are a pickle, contain one (torch.save), or are a result that Prefect pickled."""
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and _is_pickle(file)]


def _is_pickle(file: Path) -> bool:
    content = file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    if content[:1] == b"{" and b'"serializer"' in content:
        return bool(json.loads(content)["metadata"]["serializer"]["type"] != "json")
    return len(content) > 2 and content[0] == PROTOCOL and content[1] < 6
