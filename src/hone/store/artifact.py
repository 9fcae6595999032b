"""The handle of a stage's committed result, and the product that a stage hands to the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.store.layout import MANIFEST


@dataclass(frozen=True)
class Artifact:
    """The handle of a committed result: what travels between tasks instead of data.

    `digest` is over the bytes of its data files, whichever way they came about; `rows` counts its rows.
    """

    stage: str
    key: str
    uri: str
    digest: str
    rows: int

    @property
    def path(self) -> Path:
        """The directory that holds it."""
        return Path(self.uri)

    def manifest(self) -> dict[str, Any]:
        """Its manifest: recipe, files with sizes and digests, and `facts`, the stage's own account."""
        manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text("utf8"))
        return manifest

    def facts(self) -> dict[str, Any]:
        """The stage's own account of what it did."""
        facts: dict[str, Any] = self.manifest()["facts"]
        return facts


@dataclass(frozen=True)
class Product:
    """What a stage function says of the files it wrote into its output directory.

    `content` are file name patterns, relative to the directory: the files whose bytes are the result and
    decide whether later stages run again. Reports, logs and timings are left out.
    """

    rows: int
    content: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
