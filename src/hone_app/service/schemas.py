"""Write the schemas for new databases, made by the migrations of the installed releases: `make schemas`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hone.store.databases import SCHEMAS, dump_schema

if TYPE_CHECKING:
    from prefect.server.database import PrefectDBInterface


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
        for name, migrate in (("mlflow", migrate_mlflow), ("prefect", migrate_prefect)):
            database = Path(folder) / f"{name}.db"
            migrate(database)
            (SCHEMAS / f"{name}.sql").write_text(dump_schema(database), "utf8")
