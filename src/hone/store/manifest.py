"""manifest.json of an artifact: its recipe, facts, the digests of its files, and a digest of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.errors import StoreError
from hone.store.digests import digest_of
from hone.store.files import write_synced
from hone.store.layout import MANIFEST

SELF = "manifest_sha256"
FORMAT = "format"  # since 2 a manifest has SELF: without it, the key of the digest itself was damaged
_TYPES = {"stage": str, "key": str, "name": str, "digest": str, "rows": int, "recipe": dict, "facts": dict}


def write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Write and sync the manifest of the artifact in `directory`, with the digest of its content."""
    plain = json.loads(json.dumps({FORMAT: 2, **content}))  # as it is read: tuples become lists
    text = json.dumps(plain | {SELF: digest_of(plain)}, indent=1, ensure_ascii=False)
    write_synced(directory / MANIFEST, text)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of the artifact in `directory`.

    Raises StoreError if it is missing or damaged. The manifests of earlier releases have no format and no digest of
    their own.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf8"))
        digest = manifest.pop(SELF, None)
        is_proven = digest == digest_of(manifest) if FORMAT in manifest else digest in (None, digest_of(manifest))
        intact = is_proven and _is_complete(manifest)
    except FileNotFoundError:
        missing = path if directory.is_dir() else directory
        raise StoreError("does not exist", where=str(missing)) from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise StoreError("is not what was written", where=str(path))
    return dict(manifest)


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    files = manifest.get("files")
    return (
        all(isinstance(manifest.get(name), kind) for name, kind in _TYPES.items())
        and isinstance(files, dict)
        and all(isinstance(file["bytes"], int) and isinstance(file["sha256"], str) for file in files.values())
    )
