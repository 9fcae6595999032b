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
    registered = version.tags.get(TAG, "")
    if not registered:
        raise ModelError(
            f"has no tag {TAG}: it was registered before files were proved, or not by Hone",
            where=version.uri,
            fix="Register it again: `hone run CONF` with its configuration makes a version that has one.",
        )
    downloads = home().downloads
    found = version_directory(tracking_uri, version, downloads, anew=not reuse)
    wrong = _faults(found, registered)
    if wrong and reuse and found.is_relative_to(downloads):
        found = version_directory(tracking_uri, version, downloads, anew=True)
        wrong = _faults(found, registered)
    if wrong:
        more = [f"and {len(wrong) - MAX_LISTED} more"] if len(wrong) > MAX_LISTED else []
        raise ModelError(
            "its files are not those that were registered\n"
            + "\n".join(f"  {line}" for line in wrong[:MAX_LISTED] + more),
            where=f"{version.uri} ({found})",
            fix="Do not use it: find out who changed it, then register it again, or go back to another version.",
        )
    return found


def _faults(found: Path, registered: str) -> list[str]:
    kept = _drop_bytecode(found)
    if (found / sums.SUMS).is_file() and sums.file_digest(found / sums.SUMS) != registered:
        return [f"{sums.SUMS} was changed: its digest is not the version's tag {TAG}", *sums.find_faults(found)]
    return kept + sums.find_faults(found)


def _drop_bytecode(found: Path) -> list[str]:
    """Remove what Python would run in place of the sources; what cannot be removed is a fault."""
    kept = []
    for folder in sorted(found.rglob(sums.BYTECODE)):
        try:
            shutil.rmtree(folder)
        except OSError as fault:
            kept.append(f"{folder.relative_to(found)} was added, and cannot be removed ({fault.strerror})")
    return kept
