"""Sql: rows out of SQLite and out of a real PostgreSQL; no message shows a password."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hone.errors import ConfigError, DataError, HoneError, ServiceError
from hone.sources.ingest import ingest
from hone.sources.sql import Sql
from hone.store.digests import file_digest
from tests.postgresql import QUOTED, SECRET, Cluster

# In the select list the series is made row by row; in the FROM clause PostgreSQL would make all of it first.
ENDLESS = "select generate_series(1, 1000000000000) as n"


def values(url: str, query: str) -> list[dict[str, Any]]:
    return [row.values for row in Sql(url=url, query=query).rows()]


def fingerprint(url: str, query: str, fingerprint_query: str = "") -> str:
    return Sql(url=url, query=query, fingerprint_query=fingerprint_query).fingerprint(file_digest)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of an SQLite database with a table of three tickets, one of them without a text."""
    path = tmp_path / "tickets.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("create table tickets (id integer, body text, topic text, score real)")
        rows = [(1, "it's 100% broken: a\nb", "bug", 0.5), (2, None, "bug", None), (3, "añadir", "wish", 2.0)]
        connection.executemany("insert into tickets values (?,?,?,?)", rows)
    connection.close()
    return f"sqlite:///{path}"


class TestSqlite:
    def test_rows_and_nulls(self, sqlite: str, tmp_path: Path) -> None:
        source = Sql(url=sqlite, query="select body as text, topic as label, score from tickets order by id")
        options: dict[str, Any] = {"columns": ("text", "label"), "rename": {}, "keep": ("score",), "max_refused": 0.4}
        facts = ingest(source, tmp_path, **options).facts
        assert facts == {"read": 3, "rows": 2, "refused": 1, "reasons": {"text is null": 1}, "sources": {"sql": 2}}

    def test_the_fingerprint_is_of_the_rows_not_of_the_file(self, sqlite: str, tmp_path: Path) -> None:
        query = "select body from tickets order by id"
        before = fingerprint(sqlite, query)
        elsewhere = tmp_path / "elsewhere.sqlite"
        shutil.copy(sqlite.removeprefix("sqlite:///"), elsewhere)
        assert fingerprint(f"sqlite:///{elsewhere}", query) == before
        with sqlite3.connect(elsewhere) as connection:
            connection.execute("update tickets set body='new' where id=2")
        connection.close()
        assert fingerprint(f"sqlite:///{elsewhere}", query) != before

    def test_a_fingerprint_query_stands_for_the_rows(self, sqlite: str) -> None:
        counts = [
            fingerprint(sqlite, "select no_such_column from tickets", f"select count(*) + {n}") for n in (0, 0, 1)
        ]
        assert counts[0] == counts[1] != counts[2]

    def test_a_missing_file_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such SQLite file"):
            values(f"sqlite:///{tmp_path / 'none.sqlite'}", "select 1")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("select nowhere from tickets", "no such column"),
            ("selec 1", "syntax error"),
            ("drop table tickets", "would change the database"),
            ("create table t (x)", "would change the database"),
            ("with one as (select 1) delete from tickets returning id", "would change the database"),
            ("pragma user_version = 3", "would change the database"),
            ("vacuum into 'copy.sqlite'", "would change the database"),
            ("attach 'other.sqlite' as other", "would change the database"),
            ("select 1; drop table tickets", "one statement at a time"),
            ("select body, topic as body from tickets", "several columns named body"),
            ("select body from tickets where topic = ':bug'", "A colon before a word marks a parameter"),
        ],
    )
    def test_a_wrong_query(
        self, sqlite: str, query: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        content = file_digest(tmp_path / "tickets.sqlite")
        for source in (Sql(url=sqlite, query=query), Sql(url=sqlite, query="select 1", fingerprint_query=query)):
            with pytest.raises(DataError, match=message):
                source.fingerprint(file_digest)
        assert [path.name for path in tmp_path.iterdir()] == ["tickets.sqlite"]
        assert file_digest(tmp_path / "tickets.sqlite") == content

    def test_a_database_that_others_write_is_read(self, sqlite: str) -> None:
        """Its last rows are in a write-ahead log."""
        writer = sqlite3.connect(sqlite.removeprefix("sqlite:///"))
        writer.execute("pragma journal_mode = wal")
        writer.execute("insert into tickets values (4, 'new', 'bug', 1.0)")
        writer.commit()
        try:
            assert len(values(sqlite, "select id from tickets")) == 4
        finally:
            writer.close()

    @pytest.mark.parametrize("name", ["#1 of 100%.sqlite", "ü.sqlite"])
    def test_any_file_name(self, sqlite: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(sqlite.removeprefix("sqlite:///"), tmp_path / name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FILE", name)
        for url in ("sqlite:///${FILE}", f"sqlite:///file:{quote(name)}?uri=true"):
            assert len(values(url, "select id from tickets")) == 3

    def test_a_locked_database_is_worth_a_retry(self, sqlite: str) -> None:
        holder = sqlite3.connect(sqlite.removeprefix("sqlite:///"))
        holder.execute("begin exclusive")
        try:
            with pytest.raises(ServiceError, match="database is locked"):
                values(f"{sqlite}?timeout=0", "select * from tickets")
        finally:
            holder.close()

    def test_variables_are_replaced_at_use(self, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FILE", sqlite.removeprefix("sqlite:///"))
        assert values("sqlite:///${FILE}", "select 1 as one") == [{"one": 1}]


class TestUrls:
    @pytest.mark.parametrize("url", ["postgres", "postgresql://u:geheim@host:port/x", "nodialect://u:geheim@host/x"])
    def test_no_url(self, url: str) -> None:
        with pytest.raises(ConfigError) as fault:
            values(url, "select 1")
        assert "geheim" not in str(fault.value)

    def test_an_unreachable_database_is_worth_a_retry_and_shows_no_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PASSWORD", QUOTED)
        url = "postgresql://reader:${PASSWORD}@127.0.0.1:1/tickets?password=geheim&connect_timeout=2"
        with pytest.raises(ServiceError) as fault:
            values(url, "select 1")
        assert fault.value.retryable
        assert "127.0.0.1" in str(fault.value)
        _no_secret(fault.value)

    def test_what_a_driver_says_is_shown_without_secrets(self) -> None:
        """The driver repeats a wrong sslmode in its message; what stands in a URL's query may be a secret."""
        with pytest.raises(ServiceError, match=r'invalid sslmode value: "\*\*\*"') as fault:
            values("postgresql://reader@127.0.0.1:1/tickets?sslmode=geheim", "select 1")
        _no_secret(fault.value)


def _no_secret(fault: HoneError) -> None:
    """Neither in the message nor in what a traceback would print."""
    shown: BaseException | None = fault
    while shown is not None:
        for secret in (SECRET, QUOTED, "geheim"):
            assert secret not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


class TestPostgresql:
    def test_types_nulls_percents_and_casts(self, postgresql: Cluster) -> None:
        query = (
            "select 1::int as i, null as n, 'été' as t, array['a', null] as a, '{\"k\": 1}'::jsonb as j, "
            "true as b, 'x' like '%x%' as p, timestamp '2026-01-02 03:04' as d"
        )
        (row,) = values(postgresql.url, query)
        assert {key: row[key] for key in "intajbp"} == {
            "i": 1, "n": None, "t": "été", "a": ["a", None], "j": {"k": 1}, "b": True, "p": True,
        }  # fmt: skip

    def test_through_ingest(self, postgresql: Cluster, tmp_path: Path) -> None:
        source = Sql(
            url=postgresql.url,
            query="select 'text ' || n as text, case when n % 10 = 0 then null else n % 3 end as label "
            "from generate_series(1, 2500) n order by n",
        )
        options: dict[str, Any] = {"columns": ("text", "label"), "rename": {}, "keep": (), "max_refused": 0.1}
        facts = ingest(source, tmp_path, **options).facts
        assert (facts["read"], facts["rows"], facts["reasons"]) == (2500, 2250, {"label is null": 250})

    def test_rows_are_streamed(self, postgresql: Cluster) -> None:
        """The server is asked for the first rows of 10 to the power of 12, which no machine could hold."""
        rows = Sql(url=postgresql.url, query=ENDLESS).rows()
        assert [next(rows).values["n"] for _ in range(3)] == [1, 2, 3]

    def test_fingerprint(self, postgresql: Cluster) -> None:
        postgresql.execute("create table t (x text)", "insert into t values ('a')")
        before = fingerprint(postgresql.url, "select x from t")
        assert fingerprint(postgresql.url, "select x from t") == before
        postgresql.execute("insert into t values ('b')")
        assert fingerprint(postgresql.url, "select x from t") != before

    @pytest.mark.parametrize(
        ("query", "message"),
        [("select nope from pg_class", 'column "nope" does not exist'), ("select 1/0", "division by zero")],
    )
    def test_a_wrong_query(self, postgresql: Cluster, query: str, message: str) -> None:
        with pytest.raises(DataError, match=message) as fault:
            values(postgresql.url, query)
        _no_secret(fault.value)

    @pytest.mark.parametrize(
        "query",
        [
            "drop table kept",
            "create table other (x int)",
            "with gone as (delete from kept returning x) select * from gone",
            "delete from kept returning x",
            "select setval('numbers', 9)",
            "set transaction read write",
            "select 1; set transaction read write; drop table kept",
            "select 1; commit; drop table kept",
        ],
    )
    def test_no_query_writes(self, postgresql: Cluster, query: str) -> None:
        postgresql.execute(
            "drop table if exists kept, other",
            "create table kept as select 7 as x",
            "create sequence if not exists numbers",
        )
        with pytest.raises(DataError, match=r"would change the database|cannot be run") as fault:
            values(postgresql.url, query)
        _no_secret(fault.value)
        state = "select x, to_regclass('other') as other, last_value from kept, numbers"
        assert values(postgresql.url, state) == [{"x": 7, "other": None, "last_value": 1}]

    def test_a_wrong_password(self, postgresql: Cluster) -> None:
        with pytest.raises(ServiceError, match="password authentication failed") as fault:
            values(postgresql.url.replace(QUOTED, "geheim"), "select 1")
        _no_secret(fault.value)

    def test_a_server_that_goes_away_is_worth_a_retry(self, postgresql: Cluster) -> None:
        rows = Sql(url=postgresql.url, query=ENDLESS).rows()
        next(rows)
        postgresql.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        with pytest.raises(ServiceError, match="connection to the database was lost") as fault:
            for _ in rows:
                pass
        _no_secret(fault.value)
