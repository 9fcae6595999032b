"""SHA256SUMS: the SHA-256 of every file of a registered model, in the format of `sha256sum --check`.

The functions of this module are in the served.py of every registered model, which verifies its own files before it
imports any of them. The module therefore imports the standard library only.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
# Loading a model creates these: MLflow writes the registered name, Python its bytecode.
LEFT_BY_USE = ("registered_model_meta",)
BYTECODE = "__pycache__"


def write_sums(directory: Path, known_digests: Mapping[str, str]) -> str:
    """Write SHA256SUMS for all files below `directory` and return its own SHA-256.

    `known_digests` maps paths in `directory` to digests that need not be computed again.
    """
    digests = {name: known_digests.get(name) or file_digest(directory / name) for name in list_files(directory)}
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(digests.items()))
    (directory / SUMS).write_text(text, "utf8")
    return file_digest(directory / SUMS)


def find_faults(directory: Path) -> list[str]:
    """A line for each file below `directory` that differs from SHA256SUMS; empty if none does.

    Links are faults, whatever they lead to: what is behind one can change, and a folder behind one is not listed.
    """
    if not (directory / SUMS).is_file():
        return [f"{SUMS} is gone"]
    expected: dict[str, str] = {}
    for line in (directory / SUMS).read_text("utf8", errors="replace").splitlines():
        sha256, _, name = line.partition("  ")
        expected[name] = sha256
    present = list_files(directory)
    irregular = {name for name in present if not stat.S_ISREG((directory / name).lstat().st_mode)}
    faults = [f"{name} is gone" for name in expected if name not in present]
    faults += [f"{name} was added" for name in present if name not in expected]
    faults += [f"{name} is a link or not a file" for name in irregular]
    faults += [
        f"{name} was changed"
        for name in present
        if name in expected and name not in irregular and file_digest(directory / name) != expected[name]
    ]
    return sorted(faults)


def list_files(directory: Path) -> list[str]:
    """Relative paths of everything below `directory` but folders, SHA256SUMS and the files that loading creates."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_symlink() or not path.is_dir()]
    names = [str(path.relative_to(directory)) for path in paths if not _is_bytecode(path)]
    return [name for name in names if name not in (SUMS, *LEFT_BY_USE)]


def _is_bytecode(path: Path) -> bool:
    return path.parent.name == BYTECODE and ".pyc" in path.name and not path.is_symlink()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
