"""That a version's files are the bytes that were registered."""

from __future__ import annotations

from pathlib import Path

from hone.artifacts import file_digest
from hone.environment import home
from hone.errors import ModelError
from hone.registry.versions import Version, directory


def check(tracking_uri: str, version: Version) -> Path:
    """The directory of the version's model; raises ModelError naming the file that is not what was registered."""
    place = directory(tracking_uri, version, home().downloads)
    sums = place / "SHA256SUMS"
    for line in sums.read_text("utf8").splitlines() if sums.is_file() else ():
        digest, _, name = line.partition("  ")
        if not (place / name).is_file() or file_digest(place / name) != digest:
            raise ModelError("is not the file that was registered", where=str(place / name), fix="Register it again.")
    return place
