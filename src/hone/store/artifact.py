"""Artifact, the handle of a stage's committed result, and Product, what a stage function returns to the store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.errors import StoreError
from hone.store.digests import file_digest
from hone.store.manifest import read_manifest


def check_stored(file: Path) -> None:
    """Raise StoreError if a file in an artifact's directory is not what was written; for files that are read late."""
    if file_digest(file) != read_manifest(file.parent)["files"][file.name]["sha256"]:
        raise StoreError(
            "its bytes differ from those that were written", where=str(file), fix="Run again: it is made again."
        )


@dataclass(frozen=True)
class Artifact:
    """The handle of a committed result, passed between tasks instead of data.

    `digest` is computed from the bytes of its data files alone; `rows` is the number of rows.
    """

    stage: str
    key: str
    uri: str
    digest: str
    rows: int

    @property
    def path(self) -> Path:
        """The artifact's directory."""
        return Path(self.uri)

    def manifest(self) -> dict[str, Any]:
        """The manifest: recipe, files with sizes and digests, and `facts`; StoreError if it is damaged."""
        return read_manifest(self.path)

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the artifact. Raises StoreError if it is not what was written."""
        content = (self.path / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest()["files"][name]["sha256"]:
            raise StoreError(
                "its bytes differ from those that were written",
                where=str(self.path / name),
                fix=f"Delete {self.path}: the next run makes it again.",
            )
        return json.loads(content)

    def facts(self) -> dict[str, Any]:
        """What the stage recorded about its work: counts, metrics, names of files."""
        facts: dict[str, Any] = self.manifest()["facts"]
        return facts


@dataclass(frozen=True)
class Product:
    """Description of the files that a stage function wrote into its output directory.

    `content` are file name patterns relative to the directory: the files whose bytes are the result and decide
    whether later stages run again. Reports, logs and timings do not belong to it.
    """

    rows: int
    content: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    temporary: tuple[str, ...] = ()
