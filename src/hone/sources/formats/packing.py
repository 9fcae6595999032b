"""Compressed files and archives, recognised by their first bytes: gzip, bzip2, xz, zstandard; zip and tar."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from hone.errors import DataError

_AGAIN = "Download the file again."


def _zstandard() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


@dataclass(frozen=True)
class Codec:
    """A compression: the extension of its files, their first bytes, fsspec's name for it, and a new decompressor."""

    suffix: str
    magic: bytes
    name: str
    decompressor: Callable[[], Any]


CODECS = (
    Codec(".gz", b"\x1f\x8b\x08", "gzip", lambda: zlib.decompressobj(wbits=31)),
    Codec(".zst", b"\x28\xb5\x2f\xfd", "zstd", _zstandard),
    Codec(".bz2", b"BZh", "bz2", bz2.BZ2Decompressor),
    Codec(".xz", b"\xfd7zXZ\x00", "xz", lzma.LZMADecompressor),
)
COMPRESSED_SUFFIXES = tuple(codec.suffix for codec in CODECS)
_BZIP2_BLOCK = b"1AY&SY"  # pi, at the beginning of the first block: "BZh" alone may be text
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz")
# Files of a few repeated rows are small however much they grow; from here on `max_expansion` counts.
FREE_BYTES = 64 << 20
_SLICE = 1024  # bytes decompressed at once: zstandard can make 32 MiB of them
_PIECE = 1 << 20  # bytes passed on at once
HEAD_BYTES = 1024  # as many of a file's first bytes as are looked at; a tar header is 512


def find_codec(beginning: bytes, suffix: str = "") -> Codec | None:
    """The compression of a file that begins so, or that its extension claims; None for none."""
    for codec in CODECS:
        if beginning.startswith(codec.magic) and (codec.suffix != ".bz2" or beginning[4:10] == _BZIP2_BLOCK):
            return codec
    return next((codec for codec in CODECS if codec.suffix == suffix), None)


def may_be_archive(path: str) -> bool:
    """Whether the file's name is that of an archive: a remote file of another name is not opened to see."""
    suffixes = PurePosixPath(path).suffixes[-2:]
    return any(suffix in _ARCHIVE_SUFFIXES for suffix in suffixes)


def is_archive(beginning: bytes) -> bool:
    """Whether a file that begins so is a zip or a tar archive, which may be compressed."""
    return _is_zip(beginning) or _is_tar(beginning, find_codec(beginning))


def open_archive(file: BinaryIO, beginning: bytes, shown: str, max_expansion: int) -> tuple[Any, list[str]]:
    """An archive, which begins with `beginning`, as a file system, and the names of its files in their order.

    What macOS and editors add (__MACOSX/, .DS_Store) is left out. Raises DataError if it is damaged, or if its files
    together have more than FREE_BYTES and more than `max_expansion` times its size.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with archive_faults(shown):
        if _is_zip(beginning):
            from fsspec.implementations.zip import ZipFileSystem

            files = ZipFileSystem(fo=file, skip_instance_cache=True)
            members = files.zip.infolist()
            _check_expansion(sum(info.file_size for info in members), size, max_expansion, shown)
            names = [info.filename for info in members if info.filename and not info.is_dir()]
            if len(names) < sum(info.file_size > 0 for info in members):
                raise zipfile.BadZipFile("a file in it has no name")
        else:
            from fsspec.compression import compr
            from fsspec.implementations.tar import TarFileSystem

            codec = find_codec(beginning)
            unpacked: Any = compr[codec.name](_nameless(file), mode="rb") if codec else file
            bounded = _nameless(unpacked, lambda end: _check_expansion(end, size, max_expansion, shown))
            files = TarFileSystem(fo=bounded, skip_instance_cache=True)
            names = [name for name, (info, _, _) in files.index.items() if info["type"] == "file"]
    return files, [name for name in names if not name.startswith("__MACOSX/") and name.rpartition("/")[2][:1] != "."]


def _is_zip(beginning: bytes) -> bool:
    return beginning.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _is_tar(beginning: bytes, codec: Codec | None) -> bool:
    if codec:
        try:
            beginning = codec.decompressor().decompress(beginning)
        except _faults():
            return False
    return beginning[257:262] == b"ustar"


class _Nameless(io.RawIOBase):
    """A file without its name: fsspec would take a tar archive that is called data.gz for a compressed one.

    `check` is called with each offset that is to be reached.
    """

    def __init__(self, file: BinaryIO, check: Callable[[int], object]) -> None:
        self._file, self._check = file, check

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        self._check(self._file.tell())
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check(offset)
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self._file.close()
        super().close()


def _nameless(file: BinaryIO, check: Callable[[int], object] = int) -> io.BufferedReader:
    return io.BufferedReader(_Nameless(file, check))


def _check_expansion(size: int, packed: int, max_expansion: int, shown: str) -> None:
    """Raise DataError if `packed` bytes grow to `size`, more than FREE_BYTES and than `max_expansion` times as many."""
    if size > max(FREE_BYTES, packed * max_expansion):
        raise DataError(
            f"{packed:,} compressed bytes grow to more than {max_expansion} times as many",
            where=shown,
            fix="If the data is right, raise ingest.source.max_expansion.",
        )


@contextmanager
def archive_faults(shown: str) -> Iterator[None]:
    """Translate the exceptions of damaged and encrypted archives into DataError."""
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise  # of the store that the archive is in
    except _archive_exceptions() as fault:
        raise DataError(f"the archive cannot be read: {fault}", where=shown, fix=f"{_AGAIN} Or unpack it.") from None


def decompress(chunks: Iterable[bytes], suffix: str, shown: str, max_expansion: int) -> Iterator[bytes]:
    """The bytes, decompressed if they are compressed or the extension says so.

    Raises DataError if the data is damaged or truncated, or grows to more than FREE_BYTES and `max_expansion` times
    its size.
    """
    pieces = iter(chunks)
    beginning = next(pieces, b"")
    codec = find_codec(beginning, suffix)
    if codec is None:
        return chain([beginning], pieces)
    return _join_pieces(_inflate(chain([beginning], pieces), codec, shown, max_expansion))


def _inflate(chunks: Iterable[bytes], codec: Codec, shown: str, max_expansion: int) -> Iterator[bytes]:
    """Decompress one or several members, one after the other."""
    member = None
    packed = size = 0
    for chunk in _slice_chunks(chunks):
        packed += len(chunk)
        while chunk:
            if member is None and codec.suffix == ".xz" and not (chunk := chunk.lstrip(b"\0")):
                break  # xz files may be padded with zeros
            try:
                member = member or codec.decompressor()
                for text in _decompress_slice(member, chunk):
                    size += len(text)
                    _check_expansion(size, packed, max_expansion, shown)
                    yield text
            except _faults() as fault:
                raise DataError(f"its compressed data is damaged: {fault}", where=shown, fix=_AGAIN) from fault
            chunk, member = (member.unused_data, None) if member.eof else (b"", member)
    if member is not None:
        raise DataError("its compressed data is truncated", where=shown, fix=_AGAIN)


def _decompress_slice(member: Any, packed: bytes) -> Iterator[bytes]:
    """What the decompressor makes of the bytes; bzip2, which makes 45 MB of 40 bytes, and xz give _PIECE at a time."""
    if not hasattr(member, "needs_input"):
        yield member.decompress(packed)
        return
    yield member.decompress(packed, _PIECE)
    while not (member.eof or member.needs_input):
        yield member.decompress(b"", _PIECE)


def _slice_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    return (chunk[start : start + _SLICE] for chunk in chunks for start in range(0, len(chunk), _SLICE))


def _join_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of _PIECE bytes or more."""
    joined: list[bytes] = []
    size = 0
    for piece in pieces:
        joined.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(joined)
            joined, size = [], 0
    yield b"".join(joined)


def _archive_exceptions() -> tuple[type[Exception], ...]:
    """RuntimeError is for encrypted files, NotImplementedError for other compressions, KeyError for dangling links."""
    others = (zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError, KeyError)
    return (*_faults(), *others)


def _faults() -> tuple[type[Exception], ...]:
    """The exceptions of decompressors for damaged data."""
    import zstandard

    return zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError
