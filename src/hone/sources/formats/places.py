"""Places: from the paths, globs and URLs of a config to files, and from files to bytes, text and lines."""

from __future__ import annotations

import codecs
import hashlib
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from hone.errors import ConfigError, DataError, ServiceError
from hone.parts.variables import expand

CHUNK = 1 << 20
_CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "sha256")


class UndecodableError(Exception):
    """A byte that is not in the declared encoding: its offset in the (decompressed) file, in bytes."""

    def __init__(self, offset: int, byte: int) -> None:
        super().__init__(f"byte 0x{byte:02x} at offset {offset}")
        self.offset, self.byte = offset, byte


@dataclass(frozen=True)
class Place:
    """One file. `name` is the shortest end of its path that tells it from the others; `shown` is for messages."""

    files: Any
    path: str
    name: str
    shown: str

    @property
    def local(self) -> bool:
        """Whether it lies on this machine's disk."""
        return "file" in _protocols(self.files)

    def digest(self, digest: Callable[[Path], str]) -> str:
        """A local file's SHA-256 by `digest`; elsewhere the store's own checksum, else SHA-256 of the bytes."""
        if self.local:
            return digest(Path(self.path))
        with _faults(self.shown):
            info = self.files.info(self.path)
            for key in _CHECKSUMS:
                if info.get(key):
                    return f"{key}:{info[key]}"
        sha = hashlib.sha256()
        for chunk in self._raw():
            sha.update(chunk)
        return sha.hexdigest()

    def open(self) -> BinaryIO:
        """Its bytes as they lie there, seekable; the caller closes it."""
        with _faults(self.shown):
            opened: BinaryIO = self.files.open(self.path, "rb")
            return opened

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, decompressed where the name ends in .gz or .zst. Raises DataError where they are damaged."""
        suffix = PurePosixPath(self.name).suffix
        if suffix == ".gz":
            return _inflate(self._raw(), lambda: zlib.decompressobj(wbits=31), self.shown)
        if suffix == ".zst":
            import zstandard

            return _inflate(self._raw(), lambda: zstandard.ZstdDecompressor().decompressobj(), self.shown)
        return self._raw()

    def _raw(self) -> Iterator[bytes]:
        with _faults(self.shown), self.files.open(self.path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def find(patterns: Sequence[str], *, directories: bool = False) -> list[Place]:
    """The files (or directories) that paths, globs and URLs name, each once, in the patterns' order, then by name.

    Raises DataError where a pattern matches nothing, ServiceError where a store does not answer.
    """
    found: dict[str, Place] = {}
    for pattern in patterns:
        for place in _matches(pattern, directories=directories):
            found.setdefault(place.path, place)
    return rename_apart(list(found.values()))


def inside(directory: Place, pattern: str) -> list[Place]:
    """The files in `directory` whose names match `pattern`; they carry the directory's name before their own."""
    with _faults(directory.shown):
        paths = sorted(directory.files.glob(f"{directory.path.rstrip('/')}/{pattern}"))
    return [
        Place(directory.files, path, f"{directory.name}/{_basename(path)}", f"{directory.shown}/{_basename(path)}")
        for path in paths
    ]


def rename_apart(places: Sequence[Place]) -> list[Place]:
    """The same places, named by the shortest ends of their paths that tell these apart."""
    names = _names_apart([place.path for place in places])
    return [replace(place, name=name) for place, name in zip(places, names, strict=True)]


def texts(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """The decoded text, piece by piece, without a byte order mark.

    Raises UndecodableError at the first byte that is not in the encoding, after the text before it has been given.
    """
    decoder = _decoder(encoding)
    consumed, first = 0, True
    for chunk, final in _and_end(chunks):
        pending = len(decoder.getstate()[0])
        fault = None
        try:
            text = decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode(error.encoding, "ignore")
            fault = UndecodableError(consumed - pending + error.start, error.object[error.start])
        consumed += len(chunk)
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text
        if fault:
            raise fault


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, line feeds included. Nothing but a line feed ends a line."""
    begun: list[str] = []
    for piece in pieces:
        first, *rest = piece.split("\n")
        begun.append(first)
        for part in rest:
            yield "".join(begun) + "\n"
            begun = [part]
    if last := "".join(begun):
        yield last


def _matches(pattern: str, *, directories: bool) -> list[Place]:
    """What `pattern` names; their names are those of the paths."""
    from fsspec.core import url_to_fs

    url = expand(pattern)
    with _faults(_shown(url)):
        files, path = url_to_fs(url)
        paths = [path] if not _is_glob(url) or files.exists(path) else sorted(files.glob(path))
        found = [path for path in paths if (files.info(path)["type"] == "directory") == directories]
    if not found:
        kind, other = ("directory", "file") if directories else ("file", "directory")
        raise DataError(
            f"is a {other}, no {kind}" if paths else f"no {kind} is there",
            where=_shown(url),
            fix=f"Mend ingest.source.paths ({_shown(pattern)})."
            + (" DIRECTORY/*.csv names the files in a directory." if paths and not directories else ""),
        )
    return [Place(files, path, path, _shown(_with_protocol(files, path))) for path in found]


def _with_protocol(files: Any, path: str) -> str:
    if "file" in _protocols(files) or "://" in path:
        return path
    return str(files.unstrip_protocol(path))


def _is_glob(path: str) -> bool:
    """Whether it has a wildcard; in a URL a question mark is none, for there it begins the query."""
    return any(mark in path for mark in ("*[" if "://" in path else "*?["))


def _protocols(files: Any) -> Sequence[str]:
    protocol: str | Sequence[str] = files.protocol
    return (protocol,) if isinstance(protocol, str) else protocol


def _basename(path: str) -> str:
    return _segments(path)[-1]


def _segments(path: str) -> list[str]:
    """The parts of a path, of a URL without its query."""
    return (path.split("?")[0] if "://" in path else path).strip("/").split("/")


def _names_apart(paths: Sequence[str]) -> list[str]:
    parts = [_segments(path) for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _shown(path: str) -> str:
    """A path or URL without what may be secret in it: the user's part and the query."""
    return re.sub(r"(?<=://)[^/@]*@", "", path).split("?")[0] if "://" in path else path


@contextmanager
def _faults(shown: str) -> Iterator[None]:
    """Names what can go wrong at a store of files."""
    try:
        yield
    except (FileNotFoundError, PermissionError, ImportError, ValueError) as fault:
        _raise_network_fault(fault.__cause__, shown)  # fsspec calls any fault of HTTP a FileNotFoundError
        kinds: dict[type[Exception], str] = {FileNotFoundError: "no such file", PermissionError: "may not be read"}
        what = kinds.get(type(fault), f"cannot be opened: {fault}")
        raise DataError(what, where=shown, fix="Mend ingest.source.paths, or what lies there.") from None
    except _network_faults() as fault:
        _raise_network_fault(fault, shown)


def _raise_network_fault(fault: BaseException | None, shown: str) -> None:
    """Raises DataError for a refusal (HTTP 4xx), ServiceError for any other fault of a network; passes the rest."""
    if not isinstance(fault, _network_faults()):
        return
    status = getattr(fault, "status", 0)
    if 400 <= status < 500 and status != 429:
        what = "no such file" if status in (404, 410) else f"is refused with HTTP status {status}"
        raise DataError(what, where=shown, fix="Mend ingest.source.paths.") from None
    fix = "Check the network and the store, then run again."
    raise ServiceError(f"did not answer: {type(fault).__name__}", where=shown, fix=fix) from None


def _network_faults() -> tuple[type[Exception], ...]:
    """What file systems raise when a network fails; aiohttp's own errors are no OSErrors."""
    aiohttp = sys.modules.get("aiohttp")
    return (ConnectionError, TimeoutError, *([aiohttp.ClientError] if aiohttp else []))


def _inflate(chunks: Iterable[bytes], new: Callable[[], Any], shown: str) -> Iterator[bytes]:
    """Decompressed bytes of one or several members; raises DataError where the data is damaged or cut short."""
    zstd_error = getattr(sys.modules.get("zstandard"), "ZstdError", zlib.error)
    member = None
    try:
        for chunk in chunks:
            while chunk:
                member = member or new()
                yield member.decompress(chunk)
                chunk, member = (member.unused_data, None) if member.eof else (b"", member)
    except (zlib.error, zstd_error) as fault:
        raise DataError(f"its compressed data is damaged: {fault}", where=shown, fix="Fetch the file again.") from fault
    if member is not None:
        raise DataError("its compressed data ends too early", where=shown, fix="Fetch the file again.")


def _and_end(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for chunk in chunks:
        yield chunk, False
    yield b"", True


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        b"a".decode(encoding)
    except LookupError:
        raise ConfigError(
            f"there is no text encoding {encoding}",
            where="ingest.source.encoding",
            fix="Names are those of Python: utf-8, utf-16, latin-1, cp1252, shift_jis, ...",
        ) from None
    except UnicodeError:
        pass  # utf-16 and the like: one byte is no character
    return codecs.getincrementaldecoder(encoding)()
