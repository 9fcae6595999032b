"""New SQLite databases of a server, made in one step from a schema that comes with Hone.

On a new database the servers themselves run every migration since their first release: 113 of Prefect's in 5 s of
processor time, 67 of MLflow's in 1.2 s. A schema is the result, at the revision in its `alembic_version`. It is used
where the installed release has that revision; otherwise the migrations run as usual.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from hone.store.files import sync


@dataclass(frozen=True)
class Schema:
    """The SQL file `script`, the package whose server uses the database, and the folder of its Alembic migrations."""

    script: Path
    package: str
    migrations: str

    @property
    def is_known(self) -> bool:
        """Whether the installed release has the schema's revision; it may have later ones too."""
        return bool(self._revision & _list_revisions(self.package, self.migrations))

    @property
    def is_current(self) -> bool:
        """Whether the schema's revision is the last of the installed release."""
        former = _list_revisions(self.package, self.migrations, "down_revision")
        return self._revision == _list_revisions(self.package, self.migrations) - former

    def create_tables(self, path: Path) -> None:
        """Create the tables in the new file `path`, in one transaction: SQLite shows all of them or none."""
        with closing(sqlite3.connect(path)) as database:
            database.executescript(self.script.read_text("utf8"))

    @property
    def _revision(self) -> set[str]:
        pattern = r"""INSERT INTO "?alembic_version"? VALUES\('(\w+)'\)"""
        return set(re.findall(pattern, self.script.read_text("utf8")))


def dump_schema(path: Path) -> str:
    """The SQL that creates the database at `path` again, with its rows."""
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump()) + "\n"


def create_file(path: Path, make: Callable[[Path], None]) -> None:
    """Call `make` with a temporary file and move it to `path` once it is complete; a file already there stays.

    The temporary file is in memory if possible: migrations sync each step, and MLflow's take 9 s on a disk, 4 s there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else path.parent) as folder:
        finished = Path(folder) / path.name
        make(finished)
        copy = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            shutil.copyfile(finished, copy)
            sync(copy)
            with suppress(FileExistsError):
                os.link(copy, path)
        finally:
            copy.unlink(missing_ok=True)
    sync(path.parent)


@cache
def _list_revisions(package: str, migrations: str, field: str = "revision") -> set[str]:
    """`field` of each installed migration, read from the source: importing them takes seconds. Empty for none."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return set()
    pattern = re.compile(rf"""^{field}\b.*?=\s*["'](\w+)["']""", re.MULTILINE)
    files = (Path(spec.origin).parent / migrations).glob("*.py")
    return {revision for file in files for revision in pattern.findall(file.read_text("utf8"))}
