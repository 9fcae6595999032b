"""A real PostgreSQL of the tests' own, by Debian's binaries."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SECRET = "p@ss/w0rd:%"
QUOTED = "p%40ss%2Fw0rd%3A%25"


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server of our own."""

    port: int
    owner: list[str]
    pg_ctl: Path
    data: Path

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://tester:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p {self.port}"
        self._control("-l", str(self.data.with_name("log")), "-o", options, "start")

    def stop(self) -> None:
        """End it at once, as a crash of the machine would: connections break, and it recovers when it starts."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        command = [*self.owner, str(self.pg_ctl), "-D", str(self.data), "-w", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
        assert done.returncode == 0, done.stdout


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@contextmanager
def throw_away() -> Iterator[Cluster]:
    """A throw-away cluster by Debian's binaries, on loopback. PostgreSQL refuses root, so root hands it to postgres."""
    pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed: pip install 'hone[postgresql]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    binaries = found[-1].parent
    owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    home = Path(tempfile.mkdtemp(prefix="hone-postgresql-"))  # not tmp_path: the user postgres may not enter that
    data, password = home / "data", home / "password"
    password.write_text(SECRET + "\n")
    if owner:
        for path in (home, password):
            shutil.chown(path, "postgres", "postgres")

    def run(*command: str) -> None:
        done = subprocess.run([*owner, *command], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    cluster = Cluster(_free_port(), owner, binaries / "pg_ctl", data)
    try:
        run(
            str(binaries / "initdb"), "-D", str(data), "-U", "tester", "-A", "scram-sha-256",
            f"--pwfile={password}", "--no-sync", "-E", "UTF8", "--locale=C",
        )  # fmt: skip
        cluster.start()
        yield cluster
    finally:
        if (data / "postmaster.pid").exists():
            cluster.stop()
        shutil.rmtree(home)
