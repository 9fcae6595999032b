"""Finds the files that paths, globs and URLs of a config name, and reads their bytes, text and lines."""

from __future__ import annotations

import codecs
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from hone.errors import ConfigError, DataError, ServiceError
from hone.parts.variables import expand, hide_values
from hone.sources.formats.packing import (
    HEAD_BYTES,
    archive_faults,
    decompress,
    is_archive,
    may_be_archive,
    open_archive,
)

CHUNK = 1 << 20  # bytes read at once
NUL = "contains a NUL character"  # why a row is refused
# Keys of fsspec's info() under which object stores give a checksum of the content.
_CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "sha256")


_BYTE_ORDER_MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The encoding by which of each four bytes are mostly zero.
_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
}


class UndecodableError(Exception):
    """A byte that is invalid in the declared encoding; `offset` is in bytes of the decompressed file.

    `likely` is the encoding that the file seems to have instead, '' if unknown.
    """

    def __init__(self, offset: int, byte: int, likely: str = "") -> None:
        super().__init__(f"byte 0x{byte:02x} at offset {offset}")
        self.offset, self.byte, self.likely = offset, byte, likely


@dataclass(frozen=True)
class Place:
    """A file. `name` is the shortest unique end of its path; `shown` is its path in messages, without secrets.

    `below` is its path from the first folder on that a wildcard matches: what belongs to the data, wherever it lies.
    A file in an archive has the archive's place and its name in there, `member`; `files` is the archive's content.
    """

    files: Any
    path: str
    name: str
    shown: str
    below: str
    archive: Place | None = None
    member: str = ""

    @property
    def local(self) -> bool:
        """Whether the file is on the local file system."""
        return "file" in _protocols(self.files)

    @property
    def folder(self) -> str:
        """The name of the folder that it is in; '' if it is in none."""
        return ["", *_segments(self.path)][-2]

    def digest(self, digest: Callable[[Path], str]) -> str:
        """A local file's SHA-256 by `digest`; otherwise the store's checksum, else SHA-256 of the bytes.

        Of a file in an archive it is that of the archive.
        """
        if self.archive:
            return self.archive.digest(digest)
        if self.local:
            return digest(Path(self.path))
        with _faults(self.shown):
            info = self.files.info(self.path)
            for key in _CHECKSUMS:
                if info.get(key):
                    return f"{key}:{info[key]}"
        sha = hashlib.sha256()
        for chunk in self.raw():
            sha.update(chunk)
        return sha.hexdigest()

    def stamp(self) -> object:
        """What changes when the file's content does, without reading it: a local file's size and time, else ''.

        The digest notices what leaves these as they are; ctime and inode change with links and modes as well.
        """
        if self.archive:
            return self.archive.stamp()
        if not self.local:
            return ""
        with _faults(self.shown):
            stat = Path(self.path).stat()
        return stat.st_size, stat.st_mtime_ns

    def open(self) -> BinaryIO:
        """Open the file's raw bytes, seekable; the caller closes it."""
        with _faults(self.shown), self._archive_faults():
            opened: BinaryIO = self.files.open(self.member or self.path, "rb")
            return opened

    def beginning(self) -> bytes:
        """The file's first bytes as they are stored, by which compressed files and archives are recognised."""
        with self.open() as file:
            return file.read(HEAD_BYTES)

    def chunks(self, max_expansion: int) -> Iterator[bytes]:
        """The file's bytes, decompressed if they are compressed.

        Raises DataError if they are damaged, or grow to more than `max_expansion` times their size.
        """
        return decompress(self.raw(), PurePosixPath(self.name).suffix, self.shown, max_expansion)

    def raw(self) -> Iterator[bytes]:
        """The file's bytes as they are stored."""
        with _faults(self.shown), self._archive_faults(), self.files.open(self.member or self.path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def _archive_faults(self) -> AbstractContextManager[None]:
        return archive_faults(self.shown) if self.archive else nullcontext()


def find_places(patterns: Sequence[str], max_expansion: int, *, directories: bool = False) -> list[Place]:
    """The files (or directories) that paths, globs and URLs match, each once, in the patterns' order, then by name.

    The files in an archive are found in its place, in their order. Raises DataError if a pattern matches nothing or an
    archive grows to more than `max_expansion` times its size, ServiceError if a store does not answer.
    """
    places_by_path: dict[str, Place] = {}
    for pattern in patterns:
        for match in _matches(pattern, directories=directories):
            for place in [match] if directories else _unpacked(match, max_expansion):
                places_by_path.setdefault(place.path, place)
    return with_unique_names(list(places_by_path.values()))


def find_inside(directory: Place, pattern: str) -> list[Place]:
    """The files in `directory` whose names match `pattern`; their names are prefixed with the directory's."""
    with _faults(directory.shown):
        paths = sorted(directory.files.glob(f"{directory.path.rstrip('/')}/{pattern}"))
    above = len(_segments(directory.path))
    return [
        Place(
            directory.files,
            path,
            f"{directory.name}/{_basename(path)}",
            f"{directory.shown}/{_basename(path)}",
            "/".join(filter(None, [directory.below, *_segments(path)[above:]])),
        )
        for path in paths
    ]


def with_unique_names(places: Sequence[Place]) -> list[Place]:
    """The same places, each named by the shortest end of its path that makes all names unique.

    Folders before a wildcard are part of a name only if what is below them is not unique.
    """
    names = _unique_names([place.below for place in places])
    if "" in names or len(set(names)) < len(names):
        names = _unique_names([place.path for place in places])
    return [replace(place, name=name) for place, name in zip(places, names, strict=True)]


def decode_texts(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Decode the text piece by piece, without a byte order mark.

    Raises UndecodableError at the first invalid byte, after the text before it has been yielded.
    """
    decoder = _decoder(encoding)
    consumed, at_beginning = 0, True
    for chunk, final in _with_final(chunks):
        pending = len(decoder.getstate()[0])
        fault = None
        try:
            text = decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode(error.encoding, "ignore")
            likely = "" if consumed else _likely_encoding(chunk)
            fault = UndecodableError(consumed - pending + error.start, error.object[error.start], likely)
        except UnicodeError:  # utf-16 and utf-32 take the byte order from a mark at the beginning, which is not there
            raise UndecodableError(consumed, (chunk or b"\0")[0], _likely_encoding(chunk)) from None
        consumed += len(chunk)
        yield text.removeprefix("\ufeff") if at_beginning else text
        at_beginning = at_beginning and not text
        if fault:
            raise fault


def _likely_encoding(beginning: bytes) -> str:
    """The encoding of which UTF-16 or UTF-32 the text that begins so seems to be, '' if neither."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if beginning.startswith(mark):
            return encoding
    # Most texts have characters below U+0100, of which these encodings write the zero bytes too.
    zeros = tuple(beginning[place:400:4].count(0) * 8 > len(beginning[:400]) for place in range(4))
    return _ZEROS.get(zeros, "")


def split_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text that arrives in pieces, including line feeds. Only a line feed ends a line."""
    unfinished: list[str] = []
    for piece in pieces:
        first, *rest = piece.split("\n")
        unfinished.append(first)
        for part in rest:
            yield "".join(unfinished) + "\n"
            unfinished = [part]
    if last := "".join(unfinished):
        yield last


def _matches(pattern: str, *, directories: bool) -> list[Place]:
    """The places that `pattern` matches, named by their full paths."""
    from fsspec.core import url_to_fs

    url = expand(pattern)
    shown = hide_values(_shown(url), pattern)
    with _faults(shown, pattern):
        files, path = url_to_fs(url)
        files.invalidate_cache()  # fsspec keeps listings, with their checksums, for as long as the process lives
        is_pattern = _is_glob(url) and not files.exists(path)
        paths = sorted(files.glob(path)) if is_pattern else [path]
        matching_paths = [path for path in paths if (files.info(path)["type"] == "directory") == directories]
    if not matching_paths:
        kind, other = ("directory", "file") if directories else ("file", "directory")
        raise DataError(
            f"is a {other}, not a {kind}" if paths else f"no such {kind}",
            where=shown,
            fix=f"Correct ingest.source.paths ({_shown(pattern)})."
            + (" Use DIRECTORY/*.csv for the files in a directory." if paths and not directories else ""),
        )
    names = _segments(path) if directories else _segments(path)[:-1]
    fixed = sum(1 for _ in takewhile(lambda name: not (is_pattern and _is_glob(name)), names))
    return [
        Place(
            files,
            path,
            path,
            hide_values(_shown(_with_protocol(files, path)), pattern),
            "/".join(_segments(path)[fixed:]),
        )
        for path in matching_paths
    ]


def _seekable(place: Place) -> BinaryIO:
    """The file, open; one from a web server is downloaded, as not all of these can give a part of a file."""
    if not {"http", "https"} & set(_protocols(place.files)):
        return place.open()
    download = TemporaryFile()  # noqa: SIM115, closed with the archive
    for chunk in place.raw():
        download.write(chunk)
    download.seek(0)
    return download


def _unpacked(place: Place, max_expansion: int) -> list[Place]:
    """The files in an archive; the place itself if it is another file. Raises DataError for an empty archive."""
    if not place.local and not may_be_archive(place.path):
        return [place]
    beginning = place.beginning()
    if not is_archive(beginning):
        return [place]
    files, members = open_archive(_seekable(place), beginning, place.shown, max_expansion)
    if not members:
        raise DataError("the archive has no files", where=place.shown, fix="Correct ingest.source.paths.")
    return [
        Place(files, f"{place.path}/{member}", member, f"{place.shown}/{member}", member, place, member)
        for member in members
    ]


def _with_protocol(files: Any, path: str) -> str:
    if "file" in _protocols(files) or "://" in path:
        return path
    return str(files.unstrip_protocol(path))


def _is_glob(path: str) -> bool:
    """Whether the path has a wildcard; in a URL a question mark begins the query instead."""
    return any(mark in path for mark in ("*[" if "://" in path else "*?["))


def _protocols(files: Any) -> Sequence[str]:
    protocol: str | Sequence[str] = files.protocol
    return (protocol,) if isinstance(protocol, str) else protocol


def _basename(path: str) -> str:
    return _segments(path)[-1]


def _segments(path: str) -> list[str]:
    """The segments of a path; a URL's query is ignored."""
    return [name for name in (path.split("?")[0] if "://" in path else path).split("/") if name]


def _unique_names(paths: Sequence[str]) -> list[str]:
    parts = [_segments(path) for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _shown(path: str) -> str:
    """A path or URL for messages: without user information and query, which may be secret."""
    return re.sub(r"(?<=://)[^/@]*@", "", path).split("?")[0] if "://" in path else path


@contextmanager
def _faults(shown: str, pattern: str = "") -> Iterator[None]:
    """Translate the exceptions of a file system into DataError and ServiceError.

    The values of the variables in `pattern` are not shown.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, ImportError, ValueError) as fault:
        _raise_network_fault(fault.__cause__, shown)  # fsspec calls any fault of HTTP a FileNotFoundError
        messages: dict[type[Exception], str] = {FileNotFoundError: "no such file", PermissionError: "permission denied"}
        message = messages.get(type(fault), f"cannot be opened: {hide_values(str(fault), pattern)}")
        raise DataError(message, where=shown, fix="Correct ingest.source.paths, or the file itself.") from None
    except _network_faults() as fault:
        _raise_network_fault(fault, shown)


def _raise_network_fault(fault: BaseException | None, shown: str) -> None:
    """Raise DataError for a refusal (HTTP 4xx), ServiceError for another network fault; return for other exceptions."""
    if not isinstance(fault, _network_faults()):
        return
    status = getattr(fault, "status", 0)
    if 400 <= status < 500 and status != 429:
        message = "no such file" if status in (404, 410) else f"was refused with HTTP status {status}"
        raise DataError(message, where=shown, fix="Correct ingest.source.paths.") from None
    fix = "Check the network and the store, then run again."
    raise ServiceError(f"did not answer: {type(fault).__name__}", where=shown, fix=fix) from None


def _network_faults() -> tuple[type[Exception], ...]:
    """The exceptions that file systems raise for network faults; aiohttp's are not OSErrors."""
    client_error = getattr(sys.modules.get("aiohttp"), "ClientError", None)  # None while aiohttp is being imported
    return (ConnectionError, TimeoutError, *([client_error] if client_error else []))


def _with_final(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for chunk in chunks:
        yield chunk, False
    yield b"", True


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        b"a".decode(encoding)
    except LookupError:
        raise ConfigError(
            f"unknown text encoding {encoding}",
            where="ingest.source.encoding",
            fix="Use a Python encoding name: utf-8, utf-16, latin-1, cp1252, shift_jis, ...",
        ) from None
    except UnicodeError:
        pass  # the encoding exists, but one byte is not a character in it (utf-16)
    return codecs.getincrementaldecoder(encoding)()
