"""SHA256SUMS: the SHA-256 of every file of a registered model, as `sha256sum --check` reads it.

Lies in every registered model too, which proves its own files before it answers; so it needs nothing but Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
# What use leaves beside the files: MLflow notes there under which name they were loaded, Python its bytecode.
LEFT_BY_USE = ("registered_model_meta",)
BYTECODE = "__pycache__"


def write_sums(place: Path, known: Mapping[str, str]) -> str:
    """Write the sums of all files below `place`; the SHA-256 of what was written. `known` are digests by file name."""
    digests = {name: known.get(name) or file_digest(place / name) for name in list_files(place)}
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(digests.items()))
    (place / SUMS).write_text(text, "utf8")
    return file_digest(place / SUMS)


def find_faults(place: Path) -> list[str]:
    """What below `place` is not as it was registered, each with the file's name; empty where all is."""
    if not (place / SUMS).is_file():
        return [f"{SUMS} is gone"]
    wanted: dict[str, str] = {}
    for line in (place / SUMS).read_text("utf8", errors="replace").splitlines():
        sha256, _, name = line.partition("  ")
        wanted[name] = sha256
    there = list_files(place)
    found = [f"{name} is gone" for name in wanted if name not in there]
    found += [f"{name} was added" for name in there if name not in wanted]
    found += [f"{name} was changed" for name in there if name in wanted and file_digest(place / name) != wanted[name]]
    return sorted(found)


def list_files(place: Path) -> list[str]:
    """The files below `place` that count, by their paths there: not the sums, nor what use leaves beside them."""
    every = (file.relative_to(place) for file in sorted(place.rglob("*")) if not file.is_dir())
    return [str(file) for file in every if str(file) not in (SUMS, *LEFT_BY_USE) and BYTECODE not in file.parts]


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
