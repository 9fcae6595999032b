"""Compressed data that grows without bound is an error, before it fills memory or disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
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


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of two megabytes shows what one of two gigabytes does."""
    monkeypatch.setattr(packing, "FREE_BYTES", 1 << 20)


BOMB_BYTES = 2 << 30
READ = """
import resource, sys
from hone.errors import DataError
from hone.sources.files import Files

list(Files(paths=[sys.argv[1]]).rows())  # what is imported with the first file does not count
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for row in Files(paths=[sys.argv[2]]).rows():
        pass
except DataError as fault:
    print(fault)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write_zst_bomb(path: Path) -> None:
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as stream:
        for _ in range(BOMB_BYTES // len(ROWS)):
            stream.write(ROWS)


def write_zip_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive,
        archive.open("rows.csv", "w", force_zip64=True) as file,
    ):
        for _ in range(BOMB_BYTES // (8 << 20)):
            file.write(bytes(8 << 20))


def write_bomb_in_zip(path: Path) -> None:
    """A small archive with a compressed file, whose size the archive does not have."""
    inner = path.with_suffix(".zst")
    write_zst_bomb(inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "rows.csv.zst")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [("rows.csv.zst", write_zst_bomb), ("rows.zip", write_zip_bomb), ("inner.zip", write_bomb_in_zip)],
)
def test_the_shipped_bounds_stop_a_bomb_of_two_gigabytes_in_little_memory(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    small, bomb = tmp_path / f"small-{name}", tmp_path / name
    small.write_bytes(zstandard.compress(b"text\na\n") if name.endswith(".zst") else zipped("rows.csv", b"text\na\n"))
    write(bomb)
    assert bomb.stat().st_size < BOMB_BYTES / 5_000
    done = subprocess.run([sys.executable, "-c", READ, small, bomb], capture_output=True, text=True)
    *error, grown = done.stdout.splitlines()
    assert "compressed bytes grow to more than 200 times as many" in "".join(error), done.stderr
    assert int(grown) << 10 < 2 * packing.FREE_BYTES  # kB, of Linux


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


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("name", PACKED)
def test_a_file_that_grows_too_much_is_refused_and_can_be_allowed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PACKED[name]())
    with pytest.raises(DataError, match=r"(?s)grow to more than 20 times.*raise ingest\.source\.max_expansion"):
        list(Files(paths=[str(path)], max_expansion=20).rows())
    assert sum(1 for _ in Files(paths=[str(path)], max_expansion=100_000).rows()) == 100_000


@pytest.mark.usefixtures("small_bounds")
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
