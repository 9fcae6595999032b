"""File formats: readers from the text or bytes of a file to its rows.

Each reader yields (values, refused): the values of a row by column, and '' or the reason why the row cannot be used.
A fault after which the start of the next row is unknown raises DataError, because rows could be lost silently.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any, BinaryIO

from hone.errors import DataError
from hone.sources.formats.arrow_values import list_values
from hone.sources.formats.class_names import find_class_names, name_classes
from hone.sources.formats.labelled import is_split_object, read_split_object
from hone.sources.formats.places import NUL, split_lines

Row = tuple[dict[str, Any], str]
# A row with the split that its file says it has.
SplitRow = tuple[dict[str, Any], str, str]

# Above 64 Mi (2**26) characters a field is taken for an unclosed quote; the csv module's own limit is 131,072.
LARGEST_FIELD = 1 << 26


@dataclass(frozen=True)
class Dialect:
    """How delimited text is written: `escape` is the character before a quote that does not end a field, '' for none.

    `configured`: the delimiter is a person's choice, not the format's default.
    """

    delimiter: str
    quoted: bool
    escape: str = ""
    configured: bool = False


def read_csv(text: Iterable[str], names: Sequence[str], dialect: Dialect, shown: str) -> Iterator[Row]:
    """Read delimited text (RFC 4180 if quoted); without `names` the first line that is not empty is the header.

    A first line sep=; sets the delimiter. Trailing columns without a name are no columns. A line with too many or too
    few fields is refused, and so is a second header. A quoted field that is closed wrongly raises DataError if rows
    could begin within it. Empty lines are skipped. Raises DataError if the header has another delimiter.
    """
    lines = split_lines(text)
    first_line = next(lines, "")
    delimiter = _declared_delimiter(first_line, dialect, shown)
    skipped = 1 if delimiter else 0
    dialect = replace(dialect, delimiter=delimiter, configured=True) if delimiter else dialect
    last_line = [""]
    reader = csv.reader(
        _remember_last(lines if delimiter else chain([first_line], lines), last_line),
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        escapechar=dialect.escape or None,
        strict=True,
    )
    with _large_fields():
        header = list(names) or _header(reader, dialect, shown)
        columns = _named(header)
        while True:
            line = reader.line_num + 1 + skipped
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as fault:
                reason = _csv_reason(str(fault), line, reader.line_num + skipped, last_line[0], shown)
                yield {"line": last_line[0].rstrip("\r\n")}, f"{reason}: line {line}"
                continue
            if fields:
                yield _csv_row(fields, header, columns, line, shown, has_names=bool(names))


def read_jsonl(text: Iterable[str]) -> Iterator[Row]:
    """Read one JSON object per line; any other line is refused. Empty lines are skipped."""
    for number, line in enumerate(split_lines(text), 1):
        if line.strip():
            yield _json_row(line, number)


def read_json(
    text: Iterable[str], shown: str, split_keys: Mapping[str, str], names: Sequence[str]
) -> Iterator[Row | SplitRow]:
    """Read the objects of a JSON array one by one, or JSON lines if the file begins with an object.

    A single object with a list for each split gives the rows of the splits; see `read_split_object`.
    """
    pieces = iter(text)
    buffer = _Buffer(pieces)
    opening = buffer.peek()
    if opening == "[":
        return _array(buffer, shown)
    if opening == "{":
        whole = buffer.only_value()
        if is_split_object(whole, split_keys):
            return read_split_object(whole, split_keys, names, shown)
        return _json_lines(buffer.rest(), shown)
    if not opening:
        return iter(())
    raise DataError(f"begins with {opening!r}: neither a JSON array nor JSON lines", where=shown, fix="Fix the file.")


def read_lines(columns: Mapping[str, tuple[str, Iterable[str]]]) -> Iterator[Row]:
    """Read a row per line; `columns` maps each column to its file's name (for messages) and text.

    Raises DataError if the files differ in their number of lines.
    """
    files = {shown: split_lines(text) for shown, text in columns.values()}
    names = list(columns)
    for number, row in enumerate(zip_longest(*files.values())):
        if None in row:
            raise _unequal(files, row, number)
        values = {name: _strip_line_end(line) for name, line in zip(names, row, strict=True)}
        yield values, NUL if any("\0" in line for line in row) else ""


def read_documents(pieces: Iterable[str], separator: str) -> Iterator[Row]:
    """Read a row per text between separators, or a single row if `separator` is ''.

    Line feeds around a document are removed, blank documents skipped, and line ends changed to line feeds.
    """
    for text in _split_documents(_unify_line_ends(pieces), separator):
        if text.strip():
            yield {"text": text.strip("\n")}, NUL if "\0" in text else ""


def _split_documents(pieces: Iterable[str], separator: str) -> Iterator[str]:
    if not separator:
        yield "".join(pieces)
        return
    unfinished: list[str] = []
    held_end = ""  # may be the beginning of a separator: only this is searched again
    for piece in pieces:
        *finished, rest = (held_end + piece).split(separator)
        for text in finished:
            yield "".join([*unfinished, text])
            unfinished = []
        cut = max(0, len(rest) - len(separator) + 1)
        unfinished.append(rest[:cut])
        held_end = rest[cut:]
    yield "".join([*unfinished, held_end])


def _unify_line_ends(pieces: Iterable[str]) -> Iterator[str]:
    """Replace CRLF by line feeds; a carriage return at the end of a piece is held back until the next piece."""
    held_return = ""
    for piece in pieces:
        text = held_return + piece
        held_return = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n")
    yield held_return


def read_parquet(file: BinaryIO, shown: str) -> Iterator[Row]:
    """Read the rows of a Parquet file, a thousand in memory at a time.

    Class numbers become names where `datasets` wrote these into the file. A date that Python cannot express becomes
    `Unreadable`, which refuses a row only if its column is used; times of an unknown zone are in UTC.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        _check_unique(names, shown)
        namers = find_class_names(_features(parquet.schema_arrow.metadata))
        for batch in parquet.iter_batches(batch_size=1000):
            columns = [list_values(column) for column in batch.columns]
            for row in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
                yield name_classes(dict(zip(names, row, strict=True)), namers), ""
    except (pa.ArrowException, OSError, UnicodeDecodeError) as fault:
        raise DataError(
            f"cannot be read as Parquet: {fault}", where=shown, fix="Export or download the file again."
        ) from fault


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """The features that `datasets` writes into a Parquet file; {} for a file of another origin."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _declared_delimiter(first_line: str, dialect: Dialect, shown: str) -> str:
    """The delimiter that a first line such as sep=; declares, as spreadsheets write it; '' for any other line."""
    declaration = re.fullmatch(r'"?sep=([^\r\n])"?', first_line.rstrip("\r\n"), re.IGNORECASE)
    if declaration is None:
        return ""
    if dialect.configured and dialect.delimiter != declaration[1]:
        raise DataError(
            f"its first line declares the delimiter {declaration[1]!r}, not {dialect.delimiter!r}",
            where=shown,
            fix="Correct ingest.source.delimiter, or leave it out.",
        )
    return declaration[1]


def _header(reader: Any, dialect: Dialect, shown: str) -> list[str]:
    """The names of the columns; those at the end without a name are ''. Raises DataError if they cannot be right."""
    try:
        header: list[str] = next((fields for fields in reader if fields), [])
    except csv.Error as fault:
        where = f"{shown}, line {reader.line_num}"
        raise DataError(f"its header cannot be read: {fault}", where=where, fix="Fix the file.") from fault
    if any("\0" in name for name in header):
        raise DataError(
            "its header contains NUL characters",
            where=shown,
            fix="The file looks like UTF-16: set ingest.source.encoding to utf-16.",
        )
    _check_delimiter(header, dialect, shown)
    _check_unique(_named(header), shown)
    return header


def _named(header: Sequence[str]) -> Sequence[str]:
    """The header without the columns at its end that have no name (`v1,v2,,,`, as spreadsheets write them)."""
    size = len(header)
    while size and not header[size - 1].strip():
        size -= 1
    return header[:size]


def _check_delimiter(header: Sequence[str], dialect: Dialect, shown: str) -> None:
    """Raise DataError if the only column's name contains another delimiter, and none was configured."""
    others = [other for other in ";\t|," if header and other in header[0] and other != dialect.delimiter]
    if len(header) == 1 and others and not dialect.configured:
        raise DataError(
            f"its header {header[0]!r} has no {dialect.delimiter!r}, but {others[0]!r}",
            where=shown,
            fix=f"Set ingest.source.delimiter to {others[0]!r}, or to {dialect.delimiter!r} if this is one column.",
        )


def _check_unique(names: Sequence[str], shown: str) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(
            f"has several columns named {', '.join(map(repr, duplicates))}",
            where=shown,
            fix="Rename all but one of them.",
        )


def _csv_row(
    fields: list[str], header: list[str], columns: Sequence[str], line: int, shown: str, *, has_names: bool
) -> Row:
    if len(fields) != len(header):
        return {
            "fields": fields
        }, f"{_count(len(fields), 'field')} where there are {_count(len(header), 'column')}: line {line}"
    if has_names and line == 1 and fields == header:
        raise DataError("its first line is a header", where=shown, fix="Remove ingest.source.column_names.")
    if len(fields) > 1 and [fields[0].removeprefix("\ufeff"), *fields[1:]] == header:
        return {"fields": fields}, f"repeats the header: line {line}"
    if any(fields[len(columns) :]):
        return {"fields": fields}, f"a value in a column without a name: line {line}"
    return dict(zip(columns, fields, strict=False)), NUL if any("\0" in field for field in fields) else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _csv_reason(fault: str, first: int, last: int, text: str, shown: str) -> str:
    """The reason to refuse the record in these lines, of which `text` is the last.

    Raises DataError if the end of the record is unknown: a quote spans lines that may be rows, or a quote in a single
    line has no partner, so that the lines after it may be the rest of the record.
    """
    if "new-line" in fault:  # all quotes before it are closed
        return "a carriage return outside quotes"
    pairs = text.count('"') % 2 == 0 and text.replace('\\"', "").count('"') % 2 == 0  # doubled or escaped
    if last == first and (pairs or not text.endswith("\n")):
        return f"malformed ({fault})"
    escape = "set ingest.source.escape to \\ if a backslash escapes quotes; " if '\\"' in text else ""
    span = (
        f"a quote opened in line {first} spans everything up to line {last}, where it is closed wrongly"
        if last > first
        else f"line {first} has a quote without a partner: what follows may belong to its row"
    )
    raise DataError(
        f"{span} ({fault})",
        where=f"{shown}, line {first}",
        fix=f"Close or double the quote in that line; {escape}or set ingest.source.quoting to none if quotes have no "
        "meaning.",
    )


@contextmanager
def _large_fields() -> Iterator[None]:
    previous_limit = csv.field_size_limit(LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(previous_limit)


def _remember_last(items: Iterable[str], last_item: list[str]) -> Iterator[str]:
    for item in items:
        last_item[0] = item
        yield item


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("duplicate key in an object")
    return values


def _constant(name: str) -> Any:
    """NaN, which is not JSON but which pandas writes for missing values, becomes None; infinities become text."""
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
    """Read JSON lines from a .json file: its first line must be a complete object."""
    rows = read_jsonl(text)
    first_row = next(rows)
    if first_row[1].startswith("malformed JSON"):
        raise DataError(
            "begins with an object that spans several lines: neither a JSON array nor JSON lines",
            where=shown,
            fix="Use a list of objects, [{...}, {...}], or one object per line.",
        )
    return chain([first_row], rows)


class _Buffer:
    """Text that arrives in pieces, parsed value by value."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces, self._text, self._at = pieces, "", 0

    def peek(self) -> str:
        """The next character that is not whitespace; '' at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Skip the character that `peek` returned."""
        self._at += 1

    def value(self) -> Any:
        """The next JSON value; raises ValueError if there is none. More text must follow it."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if not self._fill():
                    raise
                continue
            if (
                end < len(self._text) or not self._fill()
            ):  # a number at the end of the buffer may continue in the next piece
                self._at = end
                return value

    def only_value(self) -> Any:
        """The next JSON value, which stays in the buffer; None if there is none or if more text follows it."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                return None
            except ValueError:
                if not self._fill():
                    return None
                continue
            if self._text[end:].strip():
                return None
            if not self._fill():
                return value

    def rest(self) -> Iterator[str]:
        """The text that has not been parsed yet."""
        return chain([self._text[self._at :]], self._pieces)

    def _fill(self) -> bool:
        """Read at least as much text as is buffered, so that a large value is re-parsed only a few times."""
        text_pieces = [self._text[self._at :]]
        size = 0
        for piece in self._pieces:
            text_pieces.append(piece)
            size += len(piece)
            if size >= len(text_pieces[0]) and size:
                break
        self._text, self._at = "".join(text_pieces), 0
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
    fix = "The rows after it cannot be separated: fix the file, or write one object per line (jsonl)."
    return DataError(f"malformed JSON array: {fault}", where=f"{shown}, row {number}", fix=fix)


def _unequal(files: Mapping[str, Iterator[str]], row: Sequence[str | None], number: int) -> DataError:
    counts = {
        shown: number + (line is not None) + sum(1 for _ in rest)
        for (shown, rest), line in zip(files.items(), row, strict=True)
    }
    line_counts = ", ".join(f"{shown} has {_count(count, 'line')}" for shown, count in counts.items())
    return DataError(
        f"the files of one set differ in length: {line_counts}", fix="Line i of each file must belong to row i."
    )


def _strip_line_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
