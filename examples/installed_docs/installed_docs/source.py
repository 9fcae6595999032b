"""Rows from the docstrings of installed packages: the text of a passage, and its role.

The packages' files are parsed by one process per core and not imported: safe, and reproducible on every machine.
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

_EXCLUDED = {"tests", "_tests", "conftest.py"}
_MAX_READERS = 8


@dataclass(frozen=True)
class InstalledDocs:
    """Passages of numpydoc docstrings, with the columns text, label (the role), library and object.

    A passage is the description of a parameter, return value, exception or attribute, a paragraph of the notes, or the
    summary. Headings, names and types are not part of the text, because they would leak the label.
    """

    packages: list[str] = option(
        ["numpy", "scipy", "pandas", "sklearn", "matplotlib", "networkx"],
        "Import names of installed packages with docstrings in numpydoc format.",
        min_length=1,
    )

    libraries: ClassVar[tuple[str, ...]] = ()

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Digest over the packages' versions; over the files of a package that belongs to no installed distribution."""
        roots = [_directory(package) for package in self.packages]
        return digest_of([_distribution(root) or [digest(file) for _, file in _files(root)] for root in roots])

    def rows(self) -> Iterator[RawRow]:
        """Every passage, ordered by package, file and line. A file that this Python cannot parse is a refused row."""
        files = [(root, file) for package in self.packages for root, file in _files(_directory(package))]
        for (root, file), outcome in zip(files, _read_all([str(file) for _, file in files]), strict=True):
            relative_path = file.relative_to(root.parent)
            yield from _rows(relative_path, root.name, outcome)


def _directory(package: str) -> Path:
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the package {package} is not installed",
            where="ingest.source.packages",
            fix="Install it (the demo's packages: pip install 'hone[demo]'), or remove it from the list.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _distribution(root: Path) -> str:
    """The distribution (`scikit_learn-1.9.1`) whose RECORD lists the package, '' if there is none.

    importlib.metadata.packages_distributions takes ten times as long, because it parses every RECORD.
    """
    line = f"\n{root.name}/__init__.py,".encode()
    for record in sorted(root.parent.glob("*.dist-info/RECORD")):
        if line in b"\n" + record.read_bytes():
            return record.parent.name.removesuffix(".dist-info")
    return ""


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    for file in sorted(root.rglob("*.py")):
        if not _EXCLUDED.intersection(file.relative_to(root.parent).parts):
            yield root, file


def _rows(relative_path: Path, library: str, outcome: list[Passage] | str) -> Iterator[RawRow]:
    """The rows of a file, given its passages or the reason why it could not be parsed."""
    where = relative_path.as_posix()
    if isinstance(outcome, str):
        yield RawRow(where, library, {}, refused=outcome)
        return
    module = ".".join(relative_path.with_suffix("").parts).removesuffix(".__init__")
    for line, number, owner, text, role in outcome:
        values = {"text": text, "label": role, "library": library, "object": _dotted(module, owner)}
        yield RawRow(f"{where}:{line}:{number}", library, values)


def _dotted(module: str, owner: str) -> str:
    """The object's full name; `add_newdoc` is given a full name, or one relative to the calling module's package."""
    if not owner.startswith("+"):
        return f"{module}.{owner}"
    library, package, owner = module.partition(".")[0], module.rpartition(".")[0], owner[1:]
    return owner if owner.startswith(f"{library}.") else f"{package}.{owner}"


def _read_all(files: Sequence[str]) -> Iterator[list[Passage] | str]:
    """The result of `docstrings.read_passages` for each file, in order, computed by one process per core."""
    command = [sys.executable, "-P", docstrings.__file__]
    with ExitStack() as stack:
        readers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(min(_MAX_READERS, os.cpu_count() or 1))
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
                raise HoneError(
                    "the process that reads it exited unexpectedly", where=file, fix="Run again with more memory."
                )
            yield json.loads(line)
