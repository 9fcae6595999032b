"""A disk that is full or read-only is recognized in whatever form the fault surfaces."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from hone.disk import describe_disk_fault


def test_a_fault_of_the_system_is_described_with_its_file() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/rows.parquet")
    assert describe_disk_fault(full) == ("No space left on device", "/data/rows.parquet")
    try:
        try:
            raise OSError(errno.EROFS, "Read-only file system")
        except OSError as fault:
            raise RuntimeError("a library's own error") from fault
    except RuntimeError as wrapped:
        assert describe_disk_fault(wrapped) == ("Read-only file system", "")


def test_arrow_has_the_number_in_its_message_only() -> None:
    assert describe_disk_fault(OSError("IO Error: No space left on device (os error 28)")) is not None


@pytest.mark.parametrize("fault", [ValueError("full"), OSError(errno.ENOENT, "no such file"), PermissionError(13, "x")])
def test_other_faults_are_not_of_the_disk(fault: Exception) -> None:
    assert describe_disk_fault(fault) is None


def test_a_database_that_cannot_be_written(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "x.db")
    database.execute("create table t (x)")
    database.execute("pragma max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as full:
        database.executemany("insert into t values (?)", [("x" * 1000,) for _ in range(100)])
    assert describe_disk_fault(full.value) == ("database or disk is full", "")
    with pytest.raises(sqlite3.OperationalError) as missing:
        sqlite3.connect(tmp_path / "no" / "x.db")
    assert describe_disk_fault(missing.value) is not None
    with pytest.raises(sqlite3.OperationalError) as syntax:
        database.execute("no sql")
    assert describe_disk_fault(syntax.value) is None
