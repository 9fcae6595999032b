"""File formats: from the text or bytes of a file to its rows.

Each reader yields (values, refused): the values of a row by column, and '' or why the row cannot be used. A fault
that leaves open where the next row begins is a DataError, for what follows it could not be accounted for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any, BinaryIO, Literal

from hone.errors import DataError
from hone.sources.formats.places import lines

Row = tuple[dict[str, Any], str]

# A field above 64 million characters is an unclosed quote, not a text; the csv module's own limit is 131,072.
LARGEST_FIELD = 1 << 26
_NUL = "holds a NUL character"


def read_csv(text: Iterable[str], names: Sequence[str], delimiter: str, quoted: bool, shown: str) -> Iterator[Row]:
    """The rows of delimited text (RFC 4180 where `quoted`); the first line holds the `names` where none are given.

    A line with too many or too few fields is refused. A quote that takes in further lines and is not closed as it
    should be stops with a DataError, for it may have swallowed rows. Empty lines are no rows.
    """
    last = [""]
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(_remembering(lines(text), last), delimiter=delimiter, quoting=quoting, strict=True)
    with _large_fields():
        header = list(names) or _header(reader, shown)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as fault:
                reason = _csv_reason(str(fault), line, reader.line_num, shown)
                yield {"line": last[0].rstrip("\r\n")}, f"{reason}: line {line}"
                continue
            if fields:
                yield _csv_row(fields, header, line, shown, given=bool(names))


def read_jsonl(text: Iterable[str]) -> Iterator[Row]:
    """One JSON object a line; a line that is none is refused. Empty lines are no rows."""
    for number, line in enumerate(lines(text), 1):
        if line.strip():
            yield _json_row(line, number)


def read_json(text: Iterable[str], shown: str) -> Iterator[Row]:
    """The objects of a JSON array, one by one; or JSON lines, where the file begins with an object."""
    pieces = iter(text)
    buffer = _Buffer(pieces)
    opening = buffer.peek()
    if opening == "[":
        return _array(buffer, shown)
    if opening == "{":
        return _json_lines(buffer.rest(), shown)
    if not opening:
        return iter(())
    raise DataError(f"begins with {opening!r}: neither a JSON array nor JSON lines", where=shown, fix="Mend the file.")


def read_lines(columns: Mapping[str, tuple[str, Iterable[str]]]) -> Iterator[Row]:
    """A row for each line; `columns` gives for each column the name to show and the text of the file that holds it.

    Raises DataError where the files have not the same number of lines.
    """
    files = {shown: lines(text) for shown, text in columns.values()}
    names = list(columns)
    for number, row in enumerate(zip_longest(*files.values())):
        if None in row:
            raise _unequal(files, row, number)
        values = {name: _without_end(line) for name, line in zip(names, row, strict=True)}
        yield values, _NUL if any("\0" in line for line in row) else ""


def read_documents(pieces: Iterable[str], separator: str) -> Iterator[Row]:
    """A row for each text between two of `separator`, or for the whole where it is ''.

    Line feeds around a document are left out, and documents of nothing but spaces; every line ends with a line feed.
    """
    for text in _parted(_unix(pieces), separator):
        if text.strip():
            yield {"text": text.strip("\n")}, _NUL if "\0" in text else ""


def _parted(pieces: Iterable[str], separator: str) -> Iterator[str]:
    if not separator:
        yield "".join(pieces)
        return
    begun = ""
    for piece in pieces:
        *whole, begun = (begun + piece).split(separator)
        yield from whole
    yield begun


def _unix(pieces: Iterable[str]) -> Iterator[str]:
    """The text with line feeds for every end of a line; a carriage return at a piece's end waits for the next."""
    waiting = ""
    for piece in pieces:
        text = waiting + piece
        waiting = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n")
    yield waiting


def read_parquet(file: BinaryIO, shown: str) -> Iterator[Row]:
    """The rows of a Parquet file, a thousand in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
        _no_twins(parquet.schema_arrow.names, shown)
        for batch in parquet.iter_batches(batch_size=1000):
            yield from ((values, "") for values in batch.to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as fault:
        raise DataError(
            f"cannot be read as Parquet: {fault}", where=shown, fix="Write or fetch the file again."
        ) from fault


def _header(reader: Any, shown: str) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as fault:
        raise DataError(
            f"its header cannot be read: {fault}", where=f"{shown}, line 1", fix="Mend the file."
        ) from fault
    if any("\0" in name for name in header):
        raise DataError(
            "its header holds NUL characters",
            where=shown,
            fix="It looks like UTF-16: set ingest.source.encoding: utf-16.",
        )
    _no_twins(header, shown)
    return header


def _no_twins(names: Sequence[str], shown: str) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise DataError(
            f"has several columns called {', '.join(map(repr, twins))}", where=shown, fix="Rename all but one of them."
        )


def _csv_row(fields: list[str], header: Sequence[str], line: int, shown: str, *, given: bool) -> Row:
    if len(fields) != len(header):
        return {
            "fields": fields
        }, f"{_count(len(fields), 'field')} where there are {_count(len(header), 'column')}: line {line}"
    if given and line == 1 and fields == list(header):
        raise DataError("its first line is a header", where=shown, fix="Leave ingest.source.column_names out.")
    return dict(zip(header, fields, strict=True)), _NUL if any("\0" in field for field in fields) else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _csv_reason(fault: str, first: int, last: int, shown: str) -> str:
    """Why the record in these lines is refused; raises DataError where its quote took in lines that may be rows."""
    if "new-line" in fault:  # all quotes before it are closed
        return "a carriage return outside quotes"
    if last == first:
        return f"malformed ({fault})"
    raise DataError(
        f"a quote opened in line {first} takes in everything up to line {last}, where it is not closed right ({fault})",
        where=f"{shown}, line {first}",
        fix="Close or double the quote in that line; or set ingest.source.quoting: none where quotes mean nothing.",
    )


@contextmanager
def _large_fields() -> Iterator[None]:
    before = csv.field_size_limit(LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _remembering(items: Iterable[str], last: list[str]) -> Iterator[str]:
    for item in items:
        last[0] = item
        yield item


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return values


def _constant(name: str) -> Any:
    """NaN, which is no JSON but which pandas writes for what is missing, is null; infinities are text."""
    return None if name == "NaN" else name


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _json_row(line: str, number: int) -> Row:
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as fault:
        return {"line": line.rstrip("\r\n")}, f"malformed JSON: {fault}, line {number} of the file"
    return _object_row(value)


def _object_row(value: Any) -> Row:
    return (value, "") if isinstance(value, dict) else ({"value": value}, "not a JSON object")


def _json_lines(text: Iterator[str], shown: str) -> Iterator[Row]:
    """JSON lines in a file called .json: its first line must be a whole object."""
    rows = read_jsonl(text)
    first = next(rows)
    if first[1].startswith("malformed JSON"):
        raise DataError(
            "begins with an object that its first line does not end: neither a JSON array nor JSON lines",
            where=shown,
            fix="Make it a list of objects, [{...}, {...}], or one object a line.",
        )
    return chain([first], rows)


class _Buffer:
    """Text that comes in pieces, read value by value from its front."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces, self._text, self._at = pieces, "", 0

    def peek(self) -> str:
        """The next character that is no space; '' at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def skip(self) -> None:
        """Go past the character that `peek` gave."""
        self._at += 1

    def value(self) -> Any:
        """The next JSON value; raises ValueError where there is none. It must be followed by more text."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            if end < len(self._text) or not self._more():  # the end of what is here may cut a number in two
                self._at = end
                return value

    def rest(self) -> Iterator[str]:
        """All that has not been read."""
        return chain([self._text[self._at :]], self._pieces)

    def _more(self) -> bool:
        """Read on: as much again as there is, so that a large value is parsed few times."""
        begun = [self._text[self._at :]]
        size = 0
        for piece in self._pieces:
            begun.append(piece)
            size += len(piece)
            if size >= len(begun[0]) and size:
                break
        self._text, self._at = "".join(begun), 0
        return size > 0


def _array(buffer: _Buffer, shown: str) -> Iterator[Row]:
    buffer.skip()
    number = 0
    while buffer.peek() != "]":
        number += 1
        try:
            row = _object_row(buffer.value())
        except (ValueError, RecursionError) as fault:
            raise _broken_array(str(fault), number, shown) from None
        yield row
        if buffer.peek() == ",":
            buffer.skip()
        elif buffer.peek() != "]":
            raise _broken_array("neither a comma nor the closing bracket follows it", number, shown)
    buffer.skip()
    if buffer.peek():
        raise _broken_array("more text follows the closing bracket", number, shown)


def _broken_array(fault: str, number: int, shown: str) -> DataError:
    fix = "What follows cannot be told apart into rows: mend the file, or write one object a line (jsonl)."
    return DataError(f"malformed JSON array: {fault}", where=f"{shown}, row {number}", fix=fix)


def _unequal(files: Mapping[str, Iterator[str]], row: Sequence[str | None], number: int) -> DataError:
    counts = {
        shown: number + (line is not None) + sum(1 for _ in rest)
        for (shown, rest), line in zip(files.items(), row, strict=True)
    }
    told = ", ".join(f"{shown} has {_count(count, 'line')}" for shown, count in counts.items())
    return DataError(f"the files of one set differ in length: {told}", fix="Line i of each must belong to row i.")


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
