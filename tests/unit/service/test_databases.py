"""New databases from the schemas that come with Hone: those that the servers' own migrations make."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.store.databases import Schema, create_file, dump_schema
from hone.tracking import client
from hone.tracking.client import create_sqlite_store
from hone_app.service import schemas
from hone_app.service.schemas import (
    PREFECT,
    create_prefect_database,
    migrate_mlflow,
    migrate_prefect,
    prefect_database,
)


def content(path: Path) -> list[list[str]]:
    """The statements that make the database, rows and all, and each table's columns in order.

    Left out are times (MLflow notes when an experiment was made), quotes and spaces (releases of SQLite vary them), and
    the order within a statement: migrations copy a table's constraints in another order each time.
    """
    statements = [re.sub(r'[\s"`]|\b1\d{12}\b', "", statement) for statement in dump_schema(path).split(";\n")]
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        columns = [
            [table, *(str(column[1:]) for column in database.execute(f"PRAGMA table_xinfo({table})"))]
            for (table,) in sorted(tables)
        ]
    return columns + sorted(sorted(re.split("[,()]+", statement)) for statement in statements)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "migrate"), [(PREFECT, migrate_prefect), (client.SCHEMA, migrate_mlflow)], ids=["prefect", "mlflow"]
)
def test_a_database_from_the_schema_is_the_migrated_one(
    schema: Schema, migrate: Callable[[Path], None], tmp_path: Path
) -> None:
    migrate(tmp_path / "migrated.db")
    schema.create_tables(tmp_path / "made.db")
    migrate(tmp_path / "made.db")
    assert content(tmp_path / "made.db") == content(tmp_path / "migrated.db"), "`make schemas` writes it anew"


@contextmanager
def shipped(module: Any, name: str, text: str, folder: Path) -> Iterator[Schema]:
    """Within the block this text is the schema that comes with Hone."""
    script = folder / "shipped.sql"
    script.write_text(text, "utf8")
    schema = replace(getattr(module, name), script=script)
    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(module, name, schema)
        yield schema


def test_a_newer_prefect_goes_on_from_the_schema(tmp_path: Path) -> None:
    PREFECT.create_tables(tmp_path / "now.db")
    PREFECT.create_tables(tmp_path / "before.db")
    with prefect_database(tmp_path / "before.db") as database:
        asyncio.run(database.run_migrations_downgrade("-1"))
    with shipped(schemas, "PREFECT", dump_schema(tmp_path / "before.db"), tmp_path):
        assert create_prefect_database(tmp_path / "made.db")
    assert content(tmp_path / "made.db") != content(tmp_path / "now.db")
    migrate_prefect(tmp_path / "made.db")
    assert content(tmp_path / "made.db") == content(tmp_path / "now.db")


def test_a_schema_that_the_installed_release_does_not_know_is_not_used(tmp_path: Path) -> None:
    unknown = "BEGIN;CREATE TABLE alembic_version (v);INSERT INTO \"alembic_version\" VALUES('0123456789ab');COMMIT;"
    with shipped(schemas, "PREFECT", unknown, tmp_path):
        assert not create_prefect_database(tmp_path / "prefect.db")
    assert not (tmp_path / "prefect.db").exists()
    with shipped(client, "SCHEMA", unknown, tmp_path):
        create_sqlite_store(f"sqlite:///{tmp_path}/migrated.db")
    create_sqlite_store(f"sqlite:///{tmp_path}/made.db")
    assert content(tmp_path / "migrated.db") == content(tmp_path / "made.db")


def test_mlflow_would_refuse_a_schema_of_an_earlier_release(tmp_path: Path) -> None:
    assert client.SCHEMA.is_current
    earlier = "INSERT INTO \"alembic_version\" VALUES('451aebb31d03');"
    with shipped(client, "SCHEMA", earlier, tmp_path) as schema:
        assert not schema.is_current


def test_a_database_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    path.write_bytes(b"")
    assert not create_prefect_database(path)
    assert path.read_bytes() == b""


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def make(file: Path) -> None:
        file.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_file(tmp_path / "new.db", make)
    assert not list(tmp_path.iterdir())


def test_of_two_at_once_the_first_to_finish_wins(tmp_path: Path) -> None:
    def make(file: Path) -> None:
        create_file(tmp_path / "new.db", lambda other: other.write_text("first") and None)
        file.write_text("second")

    create_file(tmp_path / "new.db", make)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("new.db", "first")]


def test_processes_that_start_together_find_one_whole_database(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    command = "import sys, pathlib; from hone_app.service import schemas"
    words = [sys.executable, "-c", f"{command}; schemas.create_prefect_database(pathlib.Path(sys.argv[1]))", str(path)]
    with ThreadPoolExecutor(4) as people:
        assert {done.returncode for done in people.map(lambda _: subprocess.run(words), range(4))} == {0}
    PREFECT.create_tables(tmp_path / "alone.db")
    assert content(path) == content(tmp_path / "alone.db")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alone.db", "prefect.db"]


def run_prefect(home: Path, **more: str) -> None:
    """What the server does before it listens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    prepare = "from hone_app.service.prefect_server import prepare_database; prepare_database()"
    command = [sys.executable, "-c", prepare]
    done = subprocess.run(command, env=environment | {"PREFECT_HOME": str(home)} | more, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_server_finds_its_tables_in_a_new_data_folder(tmp_path: Path) -> None:
    run_prefect(tmp_path / "prefect")
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
    assert tables > 30


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql+asyncpg://nobody@127.0.0.1:1/none", "sqlite+aiosqlite:///:memory:"])
def test_a_database_elsewhere_is_left_to_prefect(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    run_prefect(tmp_path / "prefect", PREFECT_SERVER_DATABASE_CONNECTION_URL=url)
    assert not list(tmp_path.rglob("*.db"))
    assert not (tmp_path / ":memory:").exists()
