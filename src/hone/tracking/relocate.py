"""Points MLflow's records at the files beside its SQLite database, after the data folder was moved or restored."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote

# Where MLflow 3 keeps absolute locations of files. Model versions and datasets refer to these.
_LOCATIONS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
# MLflow gives its first experiment, 0, this folder below the root of all files.
_FIRST = "/0"


def relocate_files(database: Path, root: Path) -> None:
    """Make all locations of files in `database` that lie below its former root lie below `root`.

    Nothing is changed while `root` is the root, under whatever name, or does not exist, or lacks a logged model that
    the former root has: then the database alone was copied. A location that a person chose elsewhere stays. A database
    that is damaged or locked is left to MLflow, which reports it.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        former = _find_root(connection)
        if not former or not root.is_dir() or _is_same(Path(unquote(former)), root):
            return
        if _has_more(connection, Path(unquote(former)), root):
            return
        for table, column in _LOCATIONS.items():
            for before, after in ((f"file://{former}/", f"{root.as_uri()}/"), (f"{unquote(former)}/", f"{root}/")):
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                )


def _find_root(connection: sqlite3.Connection) -> str:
    """The folder of all files, quoted as in a URI; '' if the first experiment does not show it."""
    row = connection.execute("select artifact_location from experiments where experiment_id = 0").fetchone()
    location = str(row[0]) if row else ""
    return location.removeprefix("file://").removesuffix(_FIRST) if location.endswith(f"/artifacts{_FIRST}") else ""


def _is_same(former: Path, root: Path) -> bool:
    return former == root or (former.is_dir() and former.samefile(root))


def _has_more(connection: sqlite3.Connection, former: Path, root: Path) -> bool:
    """Whether a logged model is in the root `former` and not in `root`."""
    for (location,) in connection.execute("select artifact_location from logged_models"):
        path = Path(unquote(str(location).removeprefix("file://")))
        if path.is_relative_to(former) and path.is_dir() and not (root / path.relative_to(former)).is_dir():
            return True
    return False
