"""Faults of a disk, in whatever form they surface: it is full, over its quota, read-only, broken or not permitted."""

from __future__ import annotations

import errno
import os
import sqlite3

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (errno.EROFS, errno.EIO)
FORBIDDEN = (errno.EACCES, errno.EPERM)  # without a file's name not of a disk
# The primary codes of SQLite, https://sqlite.org/rescode.html; an extended code has its primary code in the low byte.
SQLITE_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def describe_disk_fault(fault: BaseException | None) -> tuple[str, str] | None:
    """What is wrong with the disk, and the file if it is known, where that caused `fault`; else None."""
    while fault is not None:
        if isinstance(fault, OSError):
            number = fault.errno or _find_number(str(fault))
            if number in (*FULL, *UNWRITABLE) or (number in FORBIDDEN and fault.filename):
                return os.strerror(number), str(fault.filename or "")
        if isinstance(fault, sqlite3.Error) and getattr(fault, "sqlite_errorcode", 0) & 0xFF in SQLITE_CODES:
            return str(fault), ""
        if type(fault).__name__ == "SafetensorError" and _find_number(str(fault)) in FULL:
            return os.strerror(_find_number(str(fault))), ""
        fault = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
    return None


def _find_number(message: str) -> int:
    """The number of a fault in a message of a library written in Rust: `No space left on device (os error 28)`."""
    return next((number for number in FULL if f"os error {number})" in message), 0)
