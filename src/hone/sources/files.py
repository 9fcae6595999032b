"""Rows from files in one of several formats, or from one file per column; local files or any fsspec URL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from hone.errors import ConfigError, DataError
from hone.parts.options import REQUIRED, option
from hone.sources.formats import annotated, formats, labelled
from hone.sources.formats.labelled import PAIR, find_folder_columns
from hone.sources.formats.packing import COMPRESSED_SUFFIXES, find_codec
from hone.sources.formats.places import (
    Place,
    UndecodableError,
    decode_texts,
    find_inside,
    find_places,
    with_unique_names,
)
from hone.sources.source import RawRow, printable
from hone.sources.splits import DEFAULT_COLUMN
from hone.splits import Split
from hone.store.digests import changed_error, digest_of

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "txt",
    ".text": "txt",
    ".conll": "conll",
    ".iob": "conll",
    ".bio": "conll",
}


@dataclass(frozen=True)
class _Set:
    """The files that form rows together: a single file, or one per column; and the split they belong to."""

    places: tuple[Place, ...]
    split: str

    @property
    def name(self) -> str:
        return self.places[0].name


@dataclass(frozen=True)
class Files:
    """Rows from files in one of several formats, or one file per column; compressed, in archives, at any fsspec URL."""

    paths: list[str] = option(
        REQUIRED,
        "Files: paths, globs (data/*.csv.gz) or URLs (s3://...). ${VAR}, ${VAR:-default} and ~ are replaced. "
        "With column_files: the directories that contain them.",
        location=True,
        min_length=1,
    )
    format: Literal[
        "auto", "csv", "tsv", "json", "jsonl", "parquet", "txt", "lines", "labelled", "folders", "conll", "squad"
    ] = option(
        "auto",
        "File format; auto uses the file extension. txt: one row per line (see separator), in the column text. "
        "labelled: one row per line, its label first (TREC, SST, fastText's __label__x). folders: one row per file, "
        "its label is its folder's name. conll: one token and tag per line, with an empty line between sentences. "
        "squad: SQuAD 1.1 or 2.0 JSON, one row per question.",
    )
    splits: dict[Split, str] = option(
        {}, "Patterns of the files of each split, if the data is already split: {train: train*.csv, test: heldout/*}."
    )
    split_column: str = option(
        DEFAULT_COLUMN,
        "The column with each row's split: train, validation, dev, test, ... The column split counts only if its values"
        " are such names. Empty: no column.",
    )
    split_keys: dict[Literal["train", "valid", "test"], str] = option(
        {},
        "For a JSON object with a list for each split, the keys: {train: train, valid: val, test: test}. Other keys are"
        " left out. Empty: all its keys must be names of splits.",
    )
    aliases: dict[str, str] = option(
        {}, "Columns that have another name in some of the files: {summary1: summary} reads summary1 as summary."
    )
    column_files: dict[str, str] = option(
        {},
        "For format lines: the file of each column, one value per line: {text: seq.in, label: label}. A * matches the "
        "part of the name that files of one set share: {text: '*_text.txt', label: '*_labels.txt'}.",
    )
    column_names: list[str] = option(
        [], "Column names, for csv and tsv files without a header line, and for lists in JSON."
    )
    separator: str = option(
        "\n",
        "Separator between the rows of a txt file: a line feed, an empty line (two line feeds) or a text such as "
        "<|endoftext|>. If empty, each file is one row.",
    )
    encoding: str = option("utf-8", "Text encoding, by its Python name. A byte order mark is removed.")
    delimiter: str = option("", "Field separator; empty: a comma for csv, a tab for tsv.", max_length=1)
    quoting: Literal["auto", "rfc4180", "none"] = option(
        "auto",
        "rfc4180: fields may be in double quotes. none: quotes are ordinary characters. auto: none for tsv only.",
    )

    escape: str = option(
        "",
        'Escape character in csv and tsv, such as \\ where files have \\" for a quote. Empty: quotes are doubled.',
        max_length=1,
    )

    max_expansion: int = option(
        200,
        "How many times its size compressed data may grow, from 64 MiB on; protects memory and disk from files that are"
        " made to fill them.",
        ge=1,
    )

    libraries: ClassVar[tuple[str, ...]] = ("pyarrow",)

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Digest over each file's name, split and content, in order; independent of directories and times."""

        @cache
        def digest_once(stored: Place) -> str:  # an archive, whose digest is that of each file in it, is read once
            return stored.digest(digest)

        return digest_of(
            [
                [
                    file_set.name,
                    file_set.split,
                    [digest_once(place.archive or place) for place in file_set.places],
                    *([columns] if (columns := self._path_columns(file_set)) else []),
                ]
                for file_set in self._sets()
            ]
        )

    def rows(self) -> Iterator[RawRow]:
        """Every row of every file. Raises DataError for undecodable bytes, an empty file, a file that changes."""
        for file_set in self._sets():
            name = printable(file_set.name)
            number, stamps = 0, [place.stamp() for place in file_set.places]
            try:
                path_columns = self._path_columns(file_set)
                for number, (values, refused, *split) in enumerate(self._read(file_set), 1):
                    if not refused:
                        values, refused = self._complete(values, path_columns)
                    yield RawRow(f"{name}:{number}", name, values, split[0] if split else file_set.split, refused)
            except UndecodableError as fault:
                raise self._undecodable(file_set, number + 1, fault) from None
            for place, stamp in zip(file_set.places, stamps, strict=True):
                if place.stamp() != stamp:
                    raise changed_error(place.shown)
            if not number:
                raise DataError("has no rows", where=file_set.places[0].shown, fix="Fix the file, or exclude it.")

    def _path_columns(self, file_set: _Set) -> dict[str, str | None]:
        place = file_set.places[0]
        label = {"label": place.folder} if self.format == "folders" and place.folder else {}
        return find_folder_columns(place.below) | label

    def _complete(self, values: dict[str, Any], path_columns: Mapping[str, str | None]) -> formats.Row:
        """The row with its columns' common names and with the columns of its folders, or refused."""
        for alias, name in self.aliases.items():
            if alias in values and name in values:
                return values, f"has both {alias} and {name}"
            if alias in values:
                values = {name if column == alias else column: value for column, value in values.items()}
        for name, value in path_columns.items():
            if name in values and str(values[name]) != str(value):
                return values, f"{name} is not that of its folder"
        return ({**path_columns, **values} if path_columns else values), ""

    def _read(self, file_set: _Set) -> Iterator[formats.Row | formats.SplitRow]:
        first_place = file_set.places[0]
        kind = self._format(first_place)
        if kind == "lines":
            columns = zip(self.column_files, file_set.places, strict=True)
            return formats.read_lines({column: (place.shown, self._text(place)) for column, place in columns})
        if kind == "parquet":
            return _parquet(first_place, self.max_expansion)
        if kind in ("csv", "tsv"):
            return formats.read_csv(self._text(first_place), self.column_names, self._dialect(kind), first_place.shown)
        if kind == "json":
            names = self.column_names or PAIR
            keys = {str(split): key for split, key in self.split_keys.items()}
            return formats.read_json(self._text(first_place), first_place.shown, keys, names)
        if kind == "jsonl":
            return formats.read_jsonl(self._text(first_place))
        if kind == "conll":
            return annotated.read_conll(self._text(first_place))
        if kind == "squad":
            return annotated.read_squad(self._text(first_place), first_place.shown)
        if kind == "folders":
            return labelled.read_file(self._text(first_place))
        if kind == "labelled":
            return labelled.read_labelled(self._text(first_place))
        return self._read_text(first_place)

    def _read_text(self, place: Place) -> Iterator[formats.Row]:
        text = self._text(place)
        if self.separator != "\n":
            return formats.read_documents(text, self.separator)
        beginning = next(text, "")
        text = chain([beginning], text)
        if self.format == "auto" and beginning.startswith(labelled.FASTTEXT):
            return labelled.read_labelled(text)
        return formats.read_lines({"text": (place.shown, text)})

    def _dialect(self, kind: str) -> formats.Dialect:
        delimiter = self.delimiter or {"csv": ",", "tsv": "\t"}[kind]
        quoted = self.quoting == "rfc4180" or (self.quoting == "auto" and kind == "csv")
        return formats.Dialect(delimiter, quoted, self.escape, configured=bool(self.delimiter))

    def _text(self, place: Place) -> Iterator[str]:
        return decode_texts(place.chunks(self.max_expansion), self.encoding)

    def _format(self, place: Place) -> str:
        if self.format != "auto":
            return self.format
        if self.column_files:
            return "lines"
        name = PurePosixPath(place.name)
        suffix = PurePosixPath(name.stem).suffix if name.suffix in COMPRESSED_SUFFIXES else name.suffix
        if suffix.lower() not in _SUFFIXES:
            raise ConfigError(
                f"unknown file extension; the format cannot be inferred (known: {', '.join(_SUFFIXES)})",
                where=place.shown,
                fix="Set ingest.source.format.",
            )
        return _SUFFIXES[suffix.lower()]

    def _sets(self) -> list[_Set]:
        if (self.format == "lines") != bool(self.column_files) and self.format != "auto":
            raise ConfigError(
                "format lines and column_files must be used together",
                where="ingest.source",
                fix="Set column_files to the file of each column: {text: seq.in, label: label}.",
            )
        sets: list[tuple[Place, ...]] = (
            self._column_sets()
            if self.column_files
            else [(place,) for place in find_places(self.paths, self.max_expansion)]
        )
        self._check_splits(sets)
        return [_Set(places, self._split(places)) for places in sets]

    def _column_sets(self) -> list[tuple[Place, ...]]:
        """One set per directory and per text that the patterns' * matches."""
        sets: dict[tuple[str, str], dict[str, Place]] = {}
        for directory in find_places(self.paths, self.max_expansion, directories=True):
            for column, pattern in self.column_files.items():
                for place in find_inside(directory, pattern):
                    key = (directory.path, _star(pattern, PurePosixPath(place.path).name))
                    sets.setdefault(key, {})[column] = place
        for (directory_path, _), places in sets.items():
            for column in self.column_files.keys() - places.keys():
                present = ", ".join(place.name for place in places.values())
                raise DataError(
                    f"no file for the column {column} matches {present}",
                    where=directory_path,
                    fix=f"Correct ingest.source.column_files.{column} ({self.column_files[column]}).",
                )
        if not sets:
            raise DataError("no file matches column_files", where=", ".join(self.paths), fix="Correct ingest.source.")
        flat = iter(with_unique_names([sets[key][column] for key in sets for column in self.column_files]))
        return [tuple(next(flat) for _ in self.column_files) for _ in sets]

    def _split(self, places: tuple[Place, ...]) -> str:
        """The one split whose pattern a set's files match; '' if no splits are configured."""
        matching = [
            split
            for split, pattern in self.splits.items()
            if any(PurePosixPath(place.path).match(pattern) for place in places)
        ]
        if self.splits and len(matching) != 1:
            which = " and ".join(matching) if matching else "no split"
            raise DataError(
                f"belongs to {which}", where=places[0].shown, fix=f"Correct ingest.source.splits {self.splits}."
            )
        return matching[0] if matching else ""

    def _check_splits(self, sets: list[tuple[Place, ...]]) -> None:
        counts = Counter(self._split(places) for places in sets)
        for split, pattern in self.splits.items():
            if not counts[split]:
                raise DataError(
                    f"none of {len(sets)} files matches {pattern}",
                    where=f"ingest.source.splits.{split}",
                    fix="The files are " + ", ".join(places[0].name for places in sets[:5]) + ".",
                )

    def _undecodable(self, file_set: _Set, row: int, fault: UndecodableError) -> DataError:
        return DataError(
            f"is not {self.encoding}: byte 0x{fault.byte:02x} at byte offset {fault.offset}, in row {row}",
            where=", ".join(place.shown for place in file_set.places),
            fix=f"Set ingest.source.encoding to {fault.likely}: the file looks like it."
            if fault.likely
            else "Set ingest.source.encoding to the file's encoding (latin-1, cp1252, utf-16, ...), or fix that byte.",
        )


def _star(pattern: str, name: str) -> str:
    """The part of `name` that the * of `pattern` matches; '' without a *."""
    prefix, star, suffix = pattern.rpartition("/")[2].partition("*")
    return name.removeprefix(prefix).removesuffix(suffix) if star else ""


def _parquet(place: Place, max_expansion: int) -> Iterator[formats.Row]:
    packed = place.archive is not None or find_codec(place.beginning(), PurePosixPath(place.name).suffix) is not None
    with BytesIO(b"".join(place.chunks(max_expansion))) if packed else place.open() as file:
        yield from formats.read_parquet(file, place.shown)
