"""Whether a model version's files are those that were registered.

At registration SHA256SUMS is written over every file of the logged model, and its own digest becomes the tag
`hone.files_sha256`. So a byte that changed, a file that is gone or was added, and rewritten sums are all seen.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hone.environment import home
from hone.errors import ModelError
from hone.registry.served import sums
from hone.tracking.reader import Version, version_directory

TAG = "hone.files_sha256"
MAX_LISTED = 5


def check_files(tracking_uri: str, version: Version, *, reuse: bool = False) -> Path:
    """The local directory of the version's logged model (MLmodel lies in it), proved file by file: 1 GB/s or so.

    Files that MLflow keeps elsewhere are fetched into the data folder, anew each time; with `reuse` a copy that was
    fetched before and is whole will do, for those who use that very copy. Bytecode that Python left in it is removed:
    it is made again from the proved sources. Raises ModelError that names each file which is not as it was
    registered, and for a version that has no sums.
    """
    expected_digest = version.tags.get(TAG, "")
    if not expected_digest:
        raise ModelError(
            f"has no tag {TAG}: it was registered before files were proved, or not by Hone",
            where=version.uri,
            fix="Register it again: `hone run CONF` with its configuration makes a version that has one.",
        )
    downloads = home().downloads
    directory = version_directory(tracking_uri, version, downloads, refetch=not reuse)
    faults = _faults(directory, expected_digest)
    if faults and reuse and directory.is_relative_to(downloads):
        directory = version_directory(tracking_uri, version, downloads, refetch=True)
        faults = _faults(directory, expected_digest)
    if faults:
        remainder = [f"and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        raise ModelError(
            "its files are not those that were registered\n"
            + "\n".join(f"  {line}" for line in faults[:MAX_LISTED] + remainder),
            where=f"{version.uri} ({directory})",
            fix="Do not use it: find out who changed it, then register it again, or go back to another version.",
        )
    return directory


def _faults(directory: Path, expected_digest: str) -> list[str]:
    undeletable = _drop_bytecode(directory)
    if (directory / sums.SUMS).is_file() and sums.file_digest(directory / sums.SUMS) != expected_digest:
        return [f"{sums.SUMS} was changed: its digest is not the version's tag {TAG}", *sums.find_faults(directory)]
    return undeletable + sums.find_faults(directory)


def _drop_bytecode(directory: Path) -> list[str]:
    """Remove what Python would run in place of the sources; what cannot be removed is a fault."""
    undeletable = []
    for folder in sorted(directory.rglob(sums.BYTECODE)):
        try:
            shutil.rmtree(folder)
        except OSError as fault:
            undeletable.append(f"{folder.relative_to(directory)} was added, and cannot be removed ({fault.strerror})")
    return undeletable
