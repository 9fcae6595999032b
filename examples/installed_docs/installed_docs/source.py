"""Rows out of the docstrings of installed packages: what a passage says, and which role it plays there.

The packages' files are parsed, by a process for each core, and not imported: that is safe, and the same everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from hone.errors import DataError, HoneError
from hone.parts.options import option
from hone.sources.source import RawRow
from hone.store.digests import digest_of
from installed_docs import docstrings
from installed_docs.docstrings import Passage

_LEFT_OUT = {"tests", "_tests", "conftest.py"}
_MOST_READERS = 8


@dataclass(frozen=True)
class InstalledDocs:
    """Passages of numpydoc docstrings: text, label (the role it plays), library, object.

    Each parameter, return value, exception and attribute that is described is a passage; so is each paragraph of the
    notes, and the summary. The headings, names and types are left out of the text: they would give the label away.
    """

    packages: list[str] = option(
        ["numpy", "scipy", "pandas", "sklearn", "matplotlib", "networkx"],
        "Import names of installed packages whose docstrings are in numpydoc's format.",
        min_length=1,
    )

    libraries: ClassVar[tuple[str, ...]] = ()

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Digest over the packages' versions; over the files of one that no installed distribution claims."""
        roots = [_directory(package) for package in self.packages]
        return digest_of([_distribution(root) or [digest(file) for _, file in _files(root)] for root in roots])

    def rows(self) -> Iterator[RawRow]:
        """Every passage, by package, file and line. A file that this Python cannot parse is a refused row."""
        files = [(root, file) for package in self.packages for root, file in _files(_directory(package))]
        for (root, file), found in zip(files, _read_all([str(file) for _, file in files]), strict=True):
            inner = file.relative_to(root.parent)
            yield from _rows(inner, root.name, found)


def _directory(package: str) -> Path:
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the package {package} is not installed",
            where="ingest.source.packages",
            fix="Install it (pip install 'hone[demo]' for the demo's), or leave it out.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _distribution(root: Path) -> str:
    """The name and version (`scikit_learn-1.9.1`) whose RECORD lists the package, '' where none does.

    importlib.metadata.packages_distributions takes ten times as long, for it parses every RECORD there is.
    """
    line = f"\n{root.name}/__init__.py,".encode()
    for record in sorted(root.parent.glob("*.dist-info/RECORD")):
        if line in b"\n" + record.read_bytes():
            return record.parent.name.removesuffix(".dist-info")
    return ""


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    for file in sorted(root.rglob("*.py")):
        if not _LEFT_OUT.intersection(file.relative_to(root.parent).parts):
            yield root, file


def _rows(inner: Path, library: str, found: list[Passage] | str) -> Iterator[RawRow]:
    """The rows of a file, given its passages, or why it has none."""
    where = inner.as_posix()
    if isinstance(found, str):
        yield RawRow(where, library, {}, refused=found)
        return
    module = ".".join(inner.with_suffix("").parts).removesuffix(".__init__")
    for line, number, owner, text, role in found:
        values = {"text": text, "label": role, "library": library, "object": _dotted(module, owner)}
        yield RawRow(f"{where}:{line}:{number}", library, values)


def _dotted(module: str, owner: str) -> str:
    """The object's name. `add_newdoc` gives the full one, or one in the package of the module that calls it."""
    if not owner.startswith("+"):
        return f"{module}.{owner}"
    library, package, owner = module.partition(".")[0], module.rpartition(".")[0], owner[1:]
    return owner if owner.startswith(f"{library}.") else f"{package}.{owner}"


def _read_all(files: Sequence[str]) -> Iterator[list[Passage] | str]:
    """What `docstrings.read` gives for each file, in order, from a process for each core."""
    command = [sys.executable, "-P", docstrings.__file__]
    with ExitStack() as stack:
        readers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(min(_MOST_READERS, os.cpu_count() or 1))
        ]
        for reader in readers:
            stack.callback(reader.kill)
        for i, reader in enumerate(readers):
            assert reader.stdin
            with reader.stdin as stdin:
                json.dump(files[i :: len(readers)], stdin)
        for i, file in enumerate(files):
            stdout = readers[i % len(readers)].stdout
            assert stdout
            if not (line := stdout.readline()):
                raise HoneError("the process that reads it has died", where=file, fix="Run again, with more memory.")
            yield json.loads(line)
