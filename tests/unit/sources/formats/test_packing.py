"""Compressed data that grows without bound is an error, before it fills memory or disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hone.errors import DataError
from hone.sources.files import Files
from hone.sources.formats import packing
from hone.store.digests import file_digest

ROWS = b"text,label\n" + b"the same row again,a\n" * 100_000
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of two megabytes shows what one of two gigabytes does."""
    monkeypatch.setattr(packing, "FREE_BYTES", 1 << 20)


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


PACKED: dict[str, Callable[[], bytes]] = {
    **{f"rows.csv{suffix}": lambda pack=pack: pack(ROWS) for suffix, pack in COMPRESSIONS.items()},
    "rows.zip": lambda: zipped("rows.csv", ROWS),
    "inner.zip": lambda: zipped("rows.csv.gz", gzip.compress(ROWS)),
    "rows.tar.gz": lambda: gzip.compress(tarred("rows.csv", ROWS)),
    "rows.tar.xz": lambda: lzma.compress(tarred("rows.csv", ROWS)),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_file_that_grows_too_much_is_refused_and_can_be_allowed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PACKED[name]())
    with pytest.raises(DataError, match=r"(?s)grow to more than 20 times.*raise ingest\.source\.max_expansion"):
        list(Files(paths=[str(path)], max_expansion=20).rows())
    assert sum(1 for _ in Files(paths=[str(path)], max_expansion=100_000).rows()) == 100_000


def test_an_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """By `hone plan`, too, which asks for the fingerprint."""
    path = tmp_path / "rows.zip"
    path.write_bytes(PACKED["rows.zip"]())
    with pytest.raises(DataError, match="grow to more than 20 times"):
        Files(paths=[str(path)], max_expansion=20).fingerprint(file_digest)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_no_piece_is_larger_than_what_is_decompressed_at_once(suffix: str) -> None:
    content = COMPRESSIONS[suffix](bytes(200 << 20))
    sizes = (len(piece) for piece in packing.decompress([content], suffix, "zeros", 1 << 30))
    largest, total = 0, 0
    for size in sizes:
        largest, total = max(largest, size), total + size
    assert total == 200 << 20
    assert largest < 64 << 20
