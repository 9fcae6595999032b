"""Rows out of files of one of several formats, and of one file a column, here or behind any fsspec URL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from hone.errors import ConfigError, DataError
from hone.parts.options import REQUIRED, option
from hone.sources.formats import annotated, formats
from hone.sources.formats.places import Place, UndecodableError, find, inside, rename_apart, texts
from hone.sources.source import RawRow
from hone.store.digests import digest_of

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
_COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class _Set:
    """The files of which one line or row each makes a row: one file, or one for each column."""

    places: tuple[Place, ...]
    split: str

    @property
    def name(self) -> str:
        return self.places[0].name


@dataclass(frozen=True)
class Files:
    """Rows out of files of one of several formats, or one file a column; .gz and .zst; any fsspec URL."""

    paths: list[str] = option(
        REQUIRED,
        "Files: paths, globs (data/*.csv.gz) or URLs (s3://...). ${VAR}, ${VAR:-default} and ~ are replaced. "
        "With column_files: the directories that hold them.",
        location=True,
        min_length=1,
    )
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "txt", "lines", "conll", "squad"] = option(
        "auto",
        "What the files are; auto goes by their names' ends. txt: a row a line (see separator), in the column text. "
        "conll: a token and "
        "its tag a line, sentences parted by empty lines. squad: the JSON of SQuAD 1.1 and 2.0, a row a question.",
    )
    splits: dict[Literal["train", "valid", "test"], str] = option(
        {}, "Which files are which split, where the data came split: {train: train*.csv, test: heldout/*}."
    )
    column_files: dict[str, str] = option(
        {},
        "For format lines: each column's file, line by line: {text: seq.in, label: label}. A * may stand for what "
        "the files of one set share: {text: '*_text.txt', label: '*_labels.txt'}.",
    )
    column_names: list[str] = option([], "The columns of csv and tsv files that have no header line.")
    separator: str = option(
        "\n",
        "What parts the rows of txt files: a line feed, an empty line (two line feeds), a text such as <|endoftext|>; "
        "where it is empty each file is one row.",
    )
    encoding: str = option("utf-8", "The files' encoding, by Python's name for it. A byte order mark is left out.")
    delimiter: str = option("", "What parts the fields; empty: a comma for csv, a tab for tsv.", max_length=1)
    quoting: Literal["auto", "rfc4180", "none"] = option(
        "auto", "rfc4180: fields may stand in double quotes. none: a quote is a character. auto: none for tsv alone."
    )

    libraries: ClassVar[tuple[str, ...]] = ("pyarrow",)

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Digest over each file's name, split and content, in order; not over directories or times."""
        return digest_of(
            [[one.name, one.split, [place.digest(digest) for place in one.places]] for one in self._sets()]
        )

    def rows(self) -> Iterator[RawRow]:
        """Every row of every file. Raises DataError at bytes not in the encoding and at a file without rows."""
        for one in self._sets():
            number = 0
            try:
                for number, (values, refused) in enumerate(self._read(one), 1):
                    yield RawRow(f"{one.name}:{number}", one.name, values, one.split, refused)
            except UndecodableError as fault:
                raise self._undecodable(one, number + 1, fault) from None
            if not number:
                raise DataError("holds no rows", where=one.places[0].shown, fix="Mend or leave out the file.")

    def _read(self, one: _Set) -> Iterator[formats.Row]:
        first = one.places[0]
        kind = self._format(first)
        if kind == "lines":
            columns = zip(self.column_files, one.places, strict=True)
            return formats.read_lines({column: (place.shown, self._text(place)) for column, place in columns})
        if kind == "parquet":
            return _parquet(first)
        if kind in ("csv", "tsv"):
            delimiter = self.delimiter or {"csv": ",", "tsv": "\t"}[kind]
            quoted = self.quoting == "rfc4180" or (self.quoting == "auto" and kind == "csv")
            return formats.read_csv(self._text(first), self.column_names, delimiter, quoted, first.shown)
        if kind == "json":
            return formats.read_json(self._text(first), first.shown)
        if kind == "jsonl":
            return formats.read_jsonl(self._text(first))
        if kind == "conll":
            return annotated.read_conll(self._text(first))
        if kind == "squad":
            return annotated.read_squad(self._text(first), first.shown)
        if self.separator != "\n":
            return formats.read_documents(self._text(first), self.separator)
        return formats.read_lines({"text": (first.shown, self._text(first))})

    def _text(self, place: Place) -> Iterator[str]:
        return texts(place.chunks(), self.encoding)

    def _format(self, place: Place) -> str:
        if self.format != "auto":
            return self.format
        if self.column_files:
            return "lines"
        name = PurePosixPath(place.name)
        suffix = PurePosixPath(name.stem).suffix if name.suffix in _COMPRESSED else name.suffix
        if suffix.lower() not in _SUFFIXES:
            raise ConfigError(
                f"its name does not tell what format it has (known: {', '.join(_SUFFIXES)})",
                where=place.shown,
                fix="Set ingest.source.format.",
            )
        return _SUFFIXES[suffix.lower()]

    def _sets(self) -> list[_Set]:
        if (self.format == "lines") != bool(self.column_files) and self.format != "auto":
            raise ConfigError(
                "format lines and column_files go together",
                where="ingest.source",
                fix="column_files: {text: seq.in, label: label} names the file of each column.",
            )
        sets: list[tuple[Place, ...]] = (
            self._column_sets() if self.column_files else [(place,) for place in find(self.paths)]
        )
        self._check_splits(sets)
        return [_Set(places, self._split(places)) for places in sets]

    def _column_sets(self) -> list[tuple[Place, ...]]:
        """One set for each directory and each text that the patterns' * stands for."""
        sets: dict[tuple[str, str], dict[str, Place]] = {}
        for directory in find(self.paths, directories=True):
            for column, pattern in self.column_files.items():
                for place in inside(directory, pattern):
                    key = (directory.path, _star(pattern, PurePosixPath(place.path).name))
                    sets.setdefault(key, {})[column] = place
        for (directory_path, _), places in sets.items():
            for column in self.column_files.keys() - places.keys():
                have = ", ".join(place.name for place in places.values())
                raise DataError(
                    f"no file for the column {column} goes with {have}",
                    where=directory_path,
                    fix=f"Mend ingest.source.column_files.{column} ({self.column_files[column]}).",
                )
        if not sets:
            raise DataError("none of column_files is there", where=", ".join(self.paths), fix="Mend ingest.source.")
        flat = iter(rename_apart([sets[key][column] for key in sets for column in self.column_files]))
        return [tuple(next(flat) for _ in self.column_files) for _ in sets]

    def _split(self, places: tuple[Place, ...]) -> str:
        """The one split whose pattern a set's files match; '' where no splits are told."""
        matching = [
            split
            for split, pattern in self.splits.items()
            if any(PurePosixPath(place.path).match(pattern) for place in places)
        ]
        if self.splits and len(matching) != 1:
            which = " and ".join(matching) if matching else "no split"
            raise DataError(
                f"belongs to {which}", where=places[0].shown, fix=f"Mend ingest.source.splits {self.splits}."
            )
        return matching[0] if matching else ""

    def _check_splits(self, sets: list[tuple[Place, ...]]) -> None:
        counts = Counter(self._split(places) for places in sets)
        for split, pattern in self.splits.items():
            if not counts[split]:
                raise DataError(
                    f"none of {len(sets)} files is called {pattern}",
                    where=f"ingest.source.splits.{split}",
                    fix="There are " + ", ".join(places[0].name for places in sets[:5]) + ".",
                )

    def _undecodable(self, one: _Set, row: int, fault: UndecodableError) -> DataError:
        return DataError(
            f"is not {self.encoding}: byte 0x{fault.byte:02x} at byte offset {fault.offset}, in row {row}",
            where=", ".join(place.shown for place in one.places),
            fix="Set ingest.source.encoding to what the file is (latin-1, cp1252, utf-16, ...), or mend that byte.",
        )


def _star(pattern: str, name: str) -> str:
    """What the * of `pattern` stands for in `name`; '' where there is none."""
    before, star, after = pattern.rpartition("/")[2].partition("*")
    return name.removeprefix(before).removesuffix(after) if star else ""


def _parquet(place: Place) -> Iterator[formats.Row]:
    file = BytesIO(b"".join(place.chunks())) if place.name.endswith(_COMPRESSED) else place.open()
    with file:
        yield from formats.read_parquet(file, place.shown)
