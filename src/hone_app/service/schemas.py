"""Prefect's database schema, and the command that writes it and MLflow's again: `make schemas`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hone.store.databases import Schema, create_file, dump_schema
from hone.tracking import client

if TYPE_CHECKING:
    from prefect.server.database import PrefectDBInterface


PREFECT = Schema(Path(__file__).with_name("prefect.sql"), "prefect", "server/database/_migrations/versions/sqlite")


def create_prefect_database(path: Path) -> bool:
    """Create Prefect's database at `path` if there is no file; returns False if the server has to do it itself.

    A newer Prefect runs the migrations that the schema lacks when it starts.
    """
    if path.exists() or not PREFECT.is_known:
        return False
    create_file(path, PREFECT.create_tables)
    return True


def migrate_mlflow(path: Path) -> None:
    """Create MLflow's database at `path` by its migrations, without the experiment that each store adds."""
    from mlflow.store.db.utils import _safe_initialize_tables, create_sqlalchemy_engine_with_retry

    engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{path}")
    _safe_initialize_tables(engine)
    engine.dispose()


def migrate_prefect(path: Path) -> None:
    """Create Prefect's database at `path`, or update an existing one, by its migrations."""
    with prefect_database(path) as database:
        asyncio.run(database.create_db())


@contextmanager
def prefect_database(path: Path) -> Iterator[PrefectDBInterface]:
    """Prefect's interface to the SQLite database at `path`."""
    from prefect.server.database import provide_database_interface
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import temporary_database_config

    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{path}")):
        yield provide_database_interface()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = folder
        for schema, migrate in ((client.SCHEMA, migrate_mlflow), (PREFECT, migrate_prefect)):
            database = Path(folder) / f"{schema.package}.db"
            migrate(database)
            schema.script.write_text(dump_schema(database), "utf8")
