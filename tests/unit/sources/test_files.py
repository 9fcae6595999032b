"""Files: whatever is in them, each row comes out as it went in, or the run is told why not."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.errors import ConfigError, DataError, ServiceError
from hone.sources.files import Files
from hone.sources.formats import formats
from hone.sources.ingest import ingest
from hone.sources.source import RawRow
from hone.store.digests import file_digest

# Text as files can hold it: no half of a surrogate pair.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PROPERTY = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(path: str | list[str], **options: Any) -> list[RawRow]:
    return list(Files(paths=[path] if isinstance(path, str) else path, **options).rows())


def values(path: str | list[str], **options: Any) -> list[dict[str, Any]]:
    rows = read(path, **options)
    assert not [row for row in rows if row.refused]
    return [row.values for row in rows]


def csv_text(rows: list[list[str]], **how: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, **how).writerows(rows)
    return buffer.getvalue()


class TestDocuments:
    def test_an_empty_line_parts_them_whatever_ends_a_line(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "One:\nmy\n\n\nTwo:\r\nyour\r\n\r\n \n\nThree")
        rows = read(path, separator="\n\n")
        assert [row.values["text"] for row in rows] == ["One:\nmy", "Two:\nyour", "Three"]
        assert [row.where for row in rows] == ["a.txt:1", "a.txt:2", "a.txt:3"]

    def test_a_text_of_ones_own_parts_them_or_nothing_does(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "\nOne\n\nmore\n<|endoftext|>\nTwo\n<|endoftext|>\n")
        assert [row["text"] for row in values(path, separator="<|endoftext|>")] == ["One\n\nmore", "Two"]
        whole = "One\n\nmore\n<|endoftext|>\nTwo\n<|endoftext|>"
        assert [row["text"] for row in values(path, separator="")] == [whole]

    def test_a_separator_may_stand_where_two_pieces_meet(self) -> None:
        pieces = ["One\r", "\n\r", "\nTwo", "\n", "\nThree\r"]
        assert [row["text"] for row, _ in formats.read_documents(pieces, "\n\n")] == ["One", "Two", "Three\r"]

    def test_text_in_which_a_separator_was_not_found_is_not_searched_again(self) -> None:
        held_sizes: list[int] = []

        class Piece(str):
            def __radd__(self, held: str) -> str:
                held_sizes.append(len(held))
                return held + str(self)

        text = "no separator " * 100
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(formats, "_unify_line_ends", lambda pieces: pieces)
            [(row, _)] = formats.read_documents([Piece(text)] * 50, "<|endoftext|>")
        assert row["text"] == text * 50
        assert held_sizes and max(held_sizes) < len("<|endoftext|>")

    @PROPERTY
    @given(pieces=st.lists(st.text("ab", max_size=5), max_size=8), separator=st.text("ab", min_size=1, max_size=3))
    def test_the_documents_do_not_depend_on_the_pieces(self, pieces: list[str], separator: str) -> None:
        expected = [text for text in "".join(pieces).split(separator) if text]
        assert [row["text"] for row, _ in formats.read_documents(pieces, separator)] == expected

    def test_the_speeches_of_shakespeare(self, shared: Path) -> None:
        path = str(shared / "datasets" / "tinyshakespeare" / "input.txt")
        texts = [row["text"] for row in values(path, separator="\n\n")]
        assert len(texts) == 7222
        assert texts[1] == "All:\nSpeak, speak."
        assert "".join("".join(texts).split()) == "".join(Path(path).read_text("utf8").split())


class TestCsv:
    @PROPERTY
    @given(
        rows=st.lists(st.lists(TEXT.filter(lambda t: "\0" not in t), min_size=2, max_size=2), min_size=1, max_size=8),
        end=st.sampled_from(["\n", "\r\n"]),
        bom=st.booleans(),
    )
    def test_any_text_survives(self, tmp_path: Path, rows: list[list[str]], end: str, bom: bool) -> None:
        quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL  # with \n alone Python's writer leaves \r bare
        text = csv_text([["text", "label"], *rows], lineterminator=end, quoting=quoting)
        path = write(tmp_path / "a.csv", ("\ufeff" if bom else "") + text)
        assert [list(row.values()) for row in values(path)] == rows

    def test_a_newline_in_quotes_stays_in_its_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\r\n"two\r\nlines, and a ""quote""",x\r\nb,y\r\n')
        assert values(path) == [
            {"text": 'two\r\nlines, and a "quote"', "label": "x"},
            {"text": "b", "label": "y"},
        ]

    @pytest.mark.parametrize("line", ["only one", "one,two,three"])
    def test_a_ragged_line_is_refused_and_shifts_nothing(self, tmp_path: Path, line: str) -> None:
        path = write(tmp_path / "a.csv", f"text,label\na,x\n{line}\nb,y\n")
        first, ragged, last = read(path)
        assert (first.values, last.values) == ({"text": "a", "label": "x"}, {"text": "b", "label": "y"})
        assert "where there are 2 columns: line 3" in ragged.refused
        assert ragged.where == "a.csv:2"
        assert ragged.values == {"fields": line.split(",")}

    def test_a_bad_quote_within_one_line_is_refused_and_the_rest_is_read(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\n"a"b,x\nc,y\n')
        bad, good = read(path)
        assert "line 2" in bad.refused
        assert bad.values == {"line": '"a"b,x'}
        assert good.values == {"text": "c", "label": "y"}

    def test_a_bare_carriage_return_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", b'text,label\n"a\nb",x\ry\nc,z\n')
        bad, good = read(path)
        assert bad.refused == "a carriage return outside quotes: line 2"
        assert good.values == {"text": "c", "label": "z"}

    def test_a_quote_that_swallows_the_rest_of_the_file_stops_with_its_line(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\na,x\n"b,y\n' + "c,z\n" * 1000)
        with pytest.raises(DataError, match=r"a\.csv, line 3: a quote opened in line 3 spans .* line 1003"):
            read(path)

    def test_a_quote_that_swallows_rows_up_to_the_next_quote_stops(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\n"a,x\nb,y\n"c",z\nd,w\n')
        with pytest.raises(DataError, match="a quote opened in line 2 spans everything up to line 4"):
            read(path)

    def test_an_unclosed_quote_in_the_last_line_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\na,x\n"b,y')
        assert [bool(row.refused) for row in read(path)] == [False, True]

    def test_fields_of_a_million_characters(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", csv_text([["text", "label"], ["é" * 1_000_000, "x"], ["b", "y"]]))
        before = csv.field_size_limit(4321)
        assert [len(row["text"]) for row in values(path)] == [1_000_000, 1]
        assert csv.field_size_limit(before) == 4321

    def test_a_nul_character_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "text,label\na\0b,x\nc,y\n")
        assert [row.refused for row in read(path)] == ["contains a NUL character", ""]

    def test_utf16_taken_for_utf8_is_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "text,label\na,x\n".encode("utf-16-le"))
        with pytest.raises(DataError, match="encoding to utf-16"):
            read(path)

    def test_empty_lines_are_no_rows(self, tmp_path: Path) -> None:
        assert len(values(write(tmp_path / "a.csv", "text,label\na,x\n\nb,y\n\n"))) == 2

    def test_no_header(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", 'ham\tone\nspam\tsays "two"\nham\t"three\n')
        rows = values(path, column_names=["label", "text"])
        assert [row["text"] for row in rows] == ["one", 'says "two"', '"three']

    def test_a_header_taken_for_a_row_is_noticed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "text,label\na,x\n")
        with pytest.raises(DataError, match="its first line is a header"):
            read(path, column_names=["text", "label"])

    def test_quoted_tsv_on_demand(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", 'text\tlabel\n"a\tb"\tx\n')
        assert read(path)[0].refused
        assert values(path, quoting="rfc4180") == [{"text": "a\tb", "label": "x"}]

    def test_another_delimiter(self, tmp_path: Path) -> None:
        assert values(write(tmp_path / "a.csv", "text;label\na;x\n"), delimiter=";") == [{"text": "a", "label": "x"}]

    def test_twin_columns(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="several columns named 'text'"):
            read(write(tmp_path / "a.csv", "text,text\na,x\n"))


class TestJson:
    @PROPERTY
    @given(
        rows=st.lists(st.dictionaries(TEXT, TEXT | st.none() | st.integers() | st.lists(TEXT), min_size=1), min_size=1),
        form=st.sampled_from(["array", "pretty", "lines", "jsonl"]),
        ascii_only=st.booleans(),
    )
    def test_any_object_survives(self, tmp_path: Path, rows: list[dict[str, Any]], form: str, ascii_only: bool) -> None:
        if form in ("array", "pretty"):
            text = json.dumps(rows, ensure_ascii=ascii_only, indent=1 if form == "pretty" else None)
        else:
            text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
        assert values(write(tmp_path / ("a.jsonl" if form == "jsonl" else "a.json"), text)) == rows

    def test_a_malformed_line_is_refused_with_its_number(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": "b"\n["c"]\n{"text": 1, "text": 2}\n{"text": "d"}\n'
        )
        rows = read(path)
        assert [row.where for row in rows if row.refused] == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]
        assert rows[1].refused.startswith("malformed JSON: ")
        assert "line 3 of the file" in rows[1].refused
        assert rows[2].refused == "not a JSON object"
        assert "duplicate key" in rows[3].refused
        assert [row.values["text"] for row in rows if not row.refused] == ["a", "d"]

    def test_rows_larger_than_what_is_read_at_once(self, tmp_path: Path) -> None:
        rows = [{"text": "x" * 3_000_000}, {"text": "y"}, {"text": "z" * 2_000_000}]
        assert values(write(tmp_path / "a.json", json.dumps(rows))) == rows

    @pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2]', '[{"a": 1} {"a": 2}]', '[{"a": 1}', '[{"a": 1}] {"a": 2}'])
    def test_a_broken_array_stops(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(DataError, match=r"a\.json, row [12]: malformed JSON array"):
            read(write(tmp_path / "a.json", text))

    def test_one_object_is_no_list_of_rows(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="neither a JSON array nor JSON lines"):
            read(write(tmp_path / "a.json", '{\n "data": [{"text": "a"}]\n}'))

    def test_nan_is_null(self, tmp_path: Path) -> None:
        assert values(write(tmp_path / "a.jsonl", '{"text": NaN}\n')) == [{"text": None}]

    def test_nested_too_deeply_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", '{"a": ' + "[" * 200_000 + "\n" + '{"a": 1}\n')
        assert [bool(row.refused) for row in read(path)] == [True, False]


class TestLines:
    def test_a_line_of_txt_is_a_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "one\r\n\n three\x0bor\u2028more\r\nfour")
        assert [row["text"] for row in values(path)] == ["one", "", " three\x0bor\u2028more", "four"]

    @PROPERTY
    @given(rows=st.lists(st.tuples(*[TEXT.filter(lambda t: not set(t) & set("\0\n\r\ufeff"))] * 2), min_size=1))
    def test_any_line_survives(self, tmp_path: Path, rows: list[tuple[str, str]]) -> None:
        write(tmp_path / "d/seq.in", "".join(text + "\n" for text, _ in rows))
        write(tmp_path / "d/label", "".join(label + "\n" for _, label in rows))
        read_back = values(str(tmp_path / "d"), column_files={"text": "seq.in", "label": "label"})
        assert [(row["text"], row["label"]) for row in read_back] == rows

    def test_unequal_files_are_both_named(self, tmp_path: Path) -> None:
        write(tmp_path / "seq.in", "a\nb\nc\nd\n")
        write(tmp_path / "label", "x\ny\n")
        with pytest.raises(DataError, match=r"seq\.in has 4 lines, .*label has 2 lines"):
            read(str(tmp_path), column_files={"text": "seq.in", "label": "label"})

    def test_sets_by_directory_and_by_name(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            write(tmp_path / "a" / f"{split}_text.txt", f"{split} a\n")
            write(tmp_path / "a" / f"{split}_labels.txt", "0\n")
        rows = read(
            str(tmp_path / "a"),
            column_files={"text": "*_text.txt", "label": "*_labels.txt"},
            splits={"train": "train_*", "valid": "val_*"},
        )
        assert [(row.where, row.split, row.values["text"]) for row in rows] == [
            ("train_text.txt:1", "train", "train a"),
            ("val_text.txt:1", "valid", "val a"),
        ]

    def test_a_missing_column_file_is_named(self, tmp_path: Path) -> None:
        write(tmp_path / "train_text.txt", "a\n")
        with pytest.raises(DataError, match=r"no file for the column label matches .*train_text\.txt"):
            read(str(tmp_path), column_files={"text": "*_text.txt", "label": "*_labels.txt"})

    def test_format_lines_needs_column_files(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="used together"):
            read(str(tmp_path), format="lines")


class TestParquet:
    def test_types_and_nulls(self, tmp_path: Path) -> None:
        table = pa.table({"text": ["a", None], "n": [1, 2], "list": [["x"], []]})
        pq.write_table(table, tmp_path / "a.parquet")
        assert values(str(tmp_path / "a.parquet")) == table.to_pylist()

    @pytest.mark.parametrize("content", [b"", b"PAR1 but no more PAR1"])
    def test_a_damaged_file(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(DataError, match=r"a\.parquet: cannot be read as Parquet"):
            read(write(tmp_path / "a.parquet", content))


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
    def test_declared(self, tmp_path: Path, encoding: str) -> None:
        path = write(tmp_path / "a.csv", "text,label\ncafé,x\n".encode(encoding))
        assert values(path, encoding=encoding) == [{"text": "café", "label": "x"}]

    def test_shift_jis_across_chunks(self, tmp_path: Path) -> None:
        text = "a" + "日本" * 600_000
        path = write(tmp_path / "a.txt", text.encode("shift_jis"))
        assert values(path, encoding="shift_jis") == [{"text": text}]

    @pytest.mark.parametrize("before", [1, 40_000, 200_000])
    def test_a_wrong_byte_stops_with_file_offset_and_row(self, tmp_path: Path, before: int) -> None:
        """200,000 rows are more than is read at once."""
        head = b"text,label\n" + b"abcd,xyz\n" * before
        path = write(tmp_path / "a.csv", head + "tr\u00e8s,x\n".encode("latin-1") + b"b,y\n")
        source = Files(paths=[path])
        seen = 0
        with pytest.raises(DataError) as fault:
            for _ in source.rows():
                seen += 1
        assert seen == before
        assert f"a.csv: is not utf-8: byte 0xe8 at byte offset {len(head) + 2}, in row {before + 1}" in str(fault.value)

    def test_a_character_cut_off_at_the_end(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="byte 0xc3 at byte offset 5, in row 3"):
            read(write(tmp_path / "a.txt", b"a\nb\nc\xc3"))

    def test_in_a_json_array(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="byte 0xff at byte offset 21, in row 2"):
            read(write(tmp_path / "a.json", b'[{"a": "x"}, {"a": "y\xff"}]'))

    def test_an_encoding_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="unknown text encoding utf-9"):
            read(write(tmp_path / "a.csv", "a\n1\n"), encoding="utf-9")


class TestCompression:
    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_several_members(self, tmp_path: Path, suffix: str) -> None:
        pack = gzip.compress if suffix == ".gz" else zstandard.compress
        path = write(tmp_path / f"a.csv{suffix}", pack(b"text,label\na,x\n") + pack(b"b,y\n"))
        assert [row["text"] for row in values(path)] == ["a", "b"]

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    @pytest.mark.parametrize("harm", ["cut short", "damaged"])
    def test_a_damaged_file_stops(self, tmp_path: Path, suffix: str, harm: str) -> None:
        pack = gzip.compress if suffix == ".gz" else zstandard.compress
        packed = pack("".join(f"row {i * i}\n" for i in range(20_000)).encode())
        packed = packed[:-20] if harm == "cut short" else packed[:40] + bytes(60) + packed[100:]
        with pytest.raises(DataError, match="compressed data"):
            read(write(tmp_path / f"a.txt{suffix}", packed))

    def test_parquet_in_gz(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
        path = write(tmp_path / "b.parquet.gz", gzip.compress((tmp_path / "a.parquet").read_bytes()))
        assert values(path) == [{"text": "a"}]


class TestPlaces:
    @pytest.mark.parametrize("content", ["", "\ufeff", "text,label\n", "\n\n"])
    def test_an_empty_file(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(DataError, match=r"a\.csv: has no rows"):
            read(write(tmp_path / "a.csv", content))

    @pytest.mark.parametrize("name", ["none.csv", "*.csv"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match="no such file"):
            read(str(tmp_path / name))

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"is a directory, not a file\n.*DIRECTORY/\*\.csv"):
            read(str(tmp_path))

    def test_variables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "a.csv", "text\na\n")
        monkeypatch.setenv("DATA", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("NOWHERE", raising=False)
        for path in ("${DATA}/a.csv", f"${{NOWHERE:-{tmp_path}}}/a.csv", "~/a.csv"):
            assert values(path) == [{"text": "a"}]
        with pytest.raises(DataError, match="environment variable NOWHERE is not set"):
            read("${NOWHERE}/a.csv")

    def test_each_file_once_and_in_order(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv", "[x].csv"):
            write(tmp_path / name, f"text\n{name}\n")
        paths = [str(tmp_path / "[x].csv"), str(tmp_path / "*.csv"), str(tmp_path / "a.csv")]
        assert [row["text"] for row in values(paths)] == ["[x].csv", "a.csv", "b.csv"]

    def test_files_of_one_name_are_told_apart(self, tmp_path: Path) -> None:
        for folder in ("x", "y"):
            write(tmp_path / folder / "a.csv", "text\na\n")
        assert [row.where for row in read(str(tmp_path / "*/a.csv"))] == ["x/a.csv:1", "y/a.csv:1"]

    def test_a_format_nobody_knows(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.data", "a\n")
        with pytest.raises(ConfigError, match=r"Set ingest\.source\.format"):
            read(path)
        assert values(path, format="txt") == [{"text": "a"}]


class TestSplits:
    def test_by_name(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{name}.csv", f"text\n{name}\n") for name in ("train", "dev", "test")]
        rows = read(paths, splits={"train": "train.csv", "valid": "dev.*", "test": "test.csv"})
        assert [(row.split, row.values["text"]) for row in rows] == [
            ("train", "train"),
            ("valid", "dev"),
            ("test", "test"),
        ]

    @pytest.mark.parametrize(
        ("splits", "message"),
        [
            ({"train": "train.csv"}, "belongs to no split"),
            ({"train": "*.csv", "test": "test.csv"}, "belongs to train and test"),
            ({"train": "*.csv", "test": "held.csv"}, r"splits\.test: none of 2 files matches held\.csv"),
        ],
    )
    def test_every_file_is_in_one(self, tmp_path: Path, splits: dict[str, str], message: str) -> None:
        paths = [write(tmp_path / f"{name}.csv", f"text\n{name}\n") for name in ("train", "test")]
        with pytest.raises(DataError, match=message):
            read(paths, splits=splits)


class TestFingerprint:
    def fingerprint(self, *paths: str, **options: Any) -> str:
        return Files(paths=list(paths), **options).fingerprint(file_digest)

    def test_neither_directory_nor_time_counts(self, tmp_path: Path) -> None:
        one = write(tmp_path / "one/a.csv", "text\na\n")
        other = write(tmp_path / "other/deeper/a.csv", "text\na\n")
        assert self.fingerprint(one) == self.fingerprint(other)

    def test_content_name_order_and_split_count(self, tmp_path: Path) -> None:
        a, b = write(tmp_path / "a.csv", "text\na\n"), write(tmp_path / "b.csv", "text\nb\n")
        renamed, changed = write(tmp_path / "c.csv", "text\na\n"), write(tmp_path / "x/a.csv", "text\nA\n")
        prints = [
            self.fingerprint(a, b),
            self.fingerprint(b, a),
            self.fingerprint(renamed, b),
            self.fingerprint(changed, b),
            self.fingerprint(a, b, splits={"train": "a.csv", "test": "b.csv"}),
            self.fingerprint(a, b, splits={"train": "b.csv", "test": "a.csv"}),
        ]
        assert len(set(prints)) == len(prints)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.csv: no such file"):
            self.fingerprint(str(tmp_path / "none.csv"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory and the URL at which a real HTTP server serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestUrls:
    def test_http(self, web: tuple[Path, str]) -> None:
        folder, url = web
        write(folder / "a.csv.gz", gzip.compress(b"text,label\na,x\n"))
        assert values(f"{url}/a.csv.gz") == [{"text": "a", "label": "x"}]
        before = Files(paths=[f"{url}/a.csv.gz"]).fingerprint(file_digest)
        write(folder / "a.csv.gz", gzip.compress(b"text,label\nb,x\n"))
        assert Files(paths=[f"{url}/a.csv.gz"]).fingerprint(file_digest) != before

    def test_a_missing_page(self, web: tuple[Path, str]) -> None:
        with pytest.raises(DataError, match="no such file"):
            read(f"{web[1]}/none.csv")

    def test_no_server_is_worth_a_retry_and_shows_no_password(self, web: tuple[Path, str]) -> None:
        with pytest.raises(ServiceError) as fault:
            read("http://someone:hunter2@127.0.0.1:1/a.csv?key=geheim")
        assert "hunter2" not in str(fault.value)
        assert "geheim" not in str(fault.value)

    def test_memory(self) -> None:
        import fsspec

        with fsspec.open("memory://folder/a.csv", "wb") as file:
            file.write(b"text\na\n")
        assert values("memory://folder/*.csv") == [{"text": "a"}]

    def test_an_unknown_protocol(self) -> None:
        with pytest.raises(DataError, match="Protocol not known: nowhere"):
            read("nowhere://a/b.csv")


class TestCsvAsSpreadsheetsAndDatabasesWriteIt:
    def test_columns_at_the_end_without_a_name_are_no_columns(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "v1,v2,,,\na,x,,,\nb,y,z,,\nc,z,,,\n")
        rows = read(path)
        assert [row.values for row in rows if not row.refused] == [{"v1": "a", "v2": "x"}, {"v1": "c", "v2": "z"}]
        assert rows[1].refused == "a value in a column without a name: line 3"

    def test_an_index_without_a_name_is_a_column(self, tmp_path: Path) -> None:
        assert values(write(tmp_path / "a.csv", ",text\n0,a\n")) == [{"": "0", "text": "a"}]

    @pytest.mark.parametrize(("name", "other"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ","), ("a.csv", "|")])
    def test_a_header_with_another_delimiter_is_told(self, tmp_path: Path, name: str, other: str) -> None:
        path = write(tmp_path / name, f"text{other}label\na{other}x\n")
        with pytest.raises(DataError, match="Set ingest") as fault:
            read(path)
        assert repr(other) in fault.value.fix
        assert values(path, delimiter=other) == [{"text": "a", "label": "x"}]
        one_column = {".csv": ",", ".tsv": "\t"}[Path(name).suffix]
        assert values(path, delimiter=one_column) == [{f"text{other}label": f"a{other}x"}]

    @pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
    def test_the_delimiter_that_the_first_line_declares(self, tmp_path: Path, first: str) -> None:
        path = write(tmp_path / "a.csv", f"\ufeff{first}\r\ntext;label\r\na,b;x\r\nb\r\n")
        row, ragged = read(path)
        assert row.values == {"text": "a,b", "label": "x"}
        assert ragged.refused == "1 field where there are 2 columns: line 4"
        with pytest.raises(DataError, match="declares the delimiter ';', not ','"):
            read(path, delimiter=",")

    def test_escaped_quotes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\n"say \\"hi\\", then\nx",b\nc,d\n')
        assert values(path, escape="\\") == [{"text": 'say "hi", then\nx', "label": "b"}, {"text": "c", "label": "d"}]

    @pytest.mark.parametrize("text", ['"say \\"hi, \nx",b', '"a \\"quoted\\" one, two\nthree",b'])
    def test_no_half_row_is_read_after_a_quote_without_a_partner(self, tmp_path: Path, text: str) -> None:
        path = write(tmp_path / "a.csv", f"text,label\n{text}\nc,d\n")
        with pytest.raises(DataError, match=r"a\.csv, line 2: line 2 has a quote without a partner") as fault:
            read(path)
        assert ("ingest.source.escape" in fault.value.fix) == ("\\" in text)

    def test_an_empty_first_line(self, tmp_path: Path) -> None:
        assert values(write(tmp_path / "a.csv", "\n\r\ntext,label\na,x\n")) == [{"text": "a", "label": "x"}]

    def test_the_second_header_of_files_that_were_joined(self, tmp_path: Path) -> None:
        rows = read(write(tmp_path / "a.csv", "text,label\na,x\ntext,label\nb,y\n"))
        assert [row.refused for row in rows] == ["", "repeats the header: line 3", ""]
        assert values(write(tmp_path / "b.csv", "text\na\ntext\n")) == [{"text": "a"}, {"text": "text"}]


class TestEncodingsByTheirBytes:
    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
    def test_an_encoding_without_its_byte_order_mark_is_told(self, tmp_path: Path, encoding: str) -> None:
        path = write(tmp_path / "a.csv", "text,label\ncafé,x\n".encode(encoding))
        with pytest.raises(DataError, match=f"Set ingest.source.encoding to {encoding}: the file looks like it"):
            read(path, encoding=encoding[:6])
        assert values(path, encoding=encoding) == [{"text": "café", "label": "x"}]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
    def test_a_byte_order_mark_is_named(self, tmp_path: Path, encoding: str) -> None:
        path = write(tmp_path / "a.jsonl", '{"text": "a"}\n'.encode(encoding))
        with pytest.raises(DataError, match=f"Set ingest.source.encoding to {encoding}: the file looks like it"):
            read(path)

    def test_an_empty_file_of_a_declared_utf16(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has no rows"):
            read(write(tmp_path / "a.csv", ""), encoding="utf-16")


class TestOddParquet:
    @pytest.mark.parametrize(
        "odd",
        [
            pa.array([2**62, 1], pa.timestamp("us")),
            pa.array([2**30, 1], pa.date32()),
            pa.array([2**62, 1], pa.duration("s")),
            pa.array([[2**62], [1]], pa.list_(pa.timestamp("us"))),
            pa.array([[2**62], [1]], pa.list_(pa.timestamp("us", tz="Mars/Phobos"))),
        ],
    )
    def test_a_date_out_of_range_refuses_a_row_only_where_it_is_needed(self, tmp_path: Path, odd: pa.Array) -> None:
        pq.write_table(pa.table({"text": ["a", "b"], "odd": odd}), tmp_path / "a.parquet")
        source = Files(paths=[str(tmp_path / "a.parquet")])
        options: dict[str, Any] = {"rename": {}, "keep": [], "max_refused": 1.0}
        assert ingest(source, tmp_path, columns=["text"], **options).rows == 2
        if "Mars" in str(odd.type):
            return
        facts = ingest(source, tmp_path, columns=["text", "odd"], **options).facts
        assert (facts["rows"], facts["reasons"]) == (1, {"odd is not text": 1})

    def test_a_time_of_an_unknown_zone_is_its_moment(self, tmp_path: Path) -> None:
        odd = pa.array([None, 1_000_000], pa.timestamp("us", tz="Mars/Phobos"))
        pq.write_table(pa.table({"time": odd}), tmp_path / "a.parquet")
        assert values(str(tmp_path / "a.parquet"))[1]["time"] == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)

    def test_class_names_that_datasets_wrote(self, tmp_path: Path) -> None:
        label = datasets.ClassLabel(names=["neg", "pos"])
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": label, "tags": datasets.List(label), "in": {"label": label}}
        )
        rows = [{"text": "a", "label": 1, "tags": [0, 1], "in": {"label": 1}}, {"text": "b", "label": -1, "tags": []}]
        columns = {name: [row.get(name) for row in rows] for name in features}
        data = datasets.Dataset.from_dict(columns, features=features)
        data.to_parquet(str(tmp_path / "a.parquet"))
        first, second = values(str(tmp_path / "a.parquet"))
        assert first == {"text": "a", "label": "pos", "tags": ["neg", "pos"], "in": {"label": "pos"}}
        assert (second["label"], second["tags"]) == (None, [])

    def test_a_class_without_a_name_is_refused(self, tmp_path: Path) -> None:
        described = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
        schema = pa.schema([("text", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps(described)})
        pq.write_table(pa.table([["a", "b"], [0, 7]], schema=schema), tmp_path / "a.parquet")
        source = Files(paths=[str(tmp_path / "a.parquet")])
        ingest(source, tmp_path, columns=["text", "label"], rename={}, keep=[], max_refused=0.5)
        assert pq.read_table(tmp_path / "rows.parquet")["label"].to_pylist() == ["neg"]
        reason = pq.read_table(tmp_path / "refused.parquet")["reason"].to_pylist()
        assert reason == ["label is not text: class 7 has no name: there are 2"]


CSV = b"text,label\na,x\nb,y\n"
PACKED = {
    "gz": gzip.compress(CSV),
    "zst": zstandard.compress(CSV),
    "bz2": bz2.compress(CSV),
    "xz": lzma.compress(CSV) + bytes(8),
}


def archive(kind: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class TestPacked:
    @pytest.mark.parametrize("kind", PACKED)
    @pytest.mark.parametrize("named", [True, False])
    def test_compressed_files_by_content(self, tmp_path: Path, kind: str, named: bool) -> None:
        path = write(tmp_path / (f"a.csv.{kind}" if named else "a.csv"), PACKED[kind])
        assert [row["text"] for row in values(path)] == ["a", "b"]

    @pytest.mark.parametrize("kind", PACKED)
    def test_a_truncated_file_stops(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(DataError, match=r"its compressed data is (truncated|damaged)"):
            read(write(tmp_path / "a.csv", PACKED[kind][:-15]))

    def test_a_file_without_a_name_in_an_archive_stops(self, tmp_path: Path) -> None:
        packed = archive("zip", {"a.csv": b"text\na\n", "b.csv": b"text\nb\n"}).replace(b"b.csv", b"\0.csv")
        with pytest.raises(DataError, match="a file in it has no name"):
            read(write(tmp_path / "a.zip", packed))

    def test_text_that_begins_like_bzip2(self, tmp_path: Path) -> None:
        assert values(write(tmp_path / "a.csv", "BZh9,label\na,x\n")) == [{"BZh9": "a", "label": "x"}]

    def test_compressed_parquet_without_a_suffix(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": ["a"]}), buffer)
        assert values(write(tmp_path / "a.parquet", gzip.compress(buffer.getvalue()))) == [{"text": "a"}]
        packed = write(tmp_path / "b.zip", archive("zip", {"a.parquet": buffer.getvalue()}))
        assert values(packed) == [{"text": "a"}]

    @pytest.mark.parametrize("kind", ["zip", "", "gz", "bz2", "xz"])
    @pytest.mark.parametrize("name", ["data.zip", "data"])
    def test_archives_by_content(self, tmp_path: Path, kind: str, name: str) -> None:
        members = {
            "d/train.csv": CSV,
            "__MACOSX/d/._train.csv": b"x",
            "d/.DS_Store": b"x",
            "d/test.jsonl": b'{"text":"c"}',
        }
        path = write(tmp_path / name, archive(kind, members))
        rows = read(path, splits={"train": "train.csv", "test": "d/test.jsonl"})
        assert [(row.where, row.split, row.values["text"]) for row in rows] == [
            ("train.csv:1", "train", "a"),
            ("train.csv:2", "train", "b"),
            ("test.jsonl:1", "test", "c"),
        ]
        before = Files(paths=[path]).fingerprint(file_digest)
        write(tmp_path / name, archive(kind, members | {"d/test.jsonl": b'{"text":"d"}'}))
        assert Files(paths=[path]).fingerprint(file_digest) != before

    def test_an_archive_is_digested_once(self, tmp_path: Path) -> None:
        path = write(tmp_path / "data.zip", archive("zip", {f"{n}.csv": CSV for n in range(20)}))
        digested: list[Path] = []
        Files(paths=[path]).fingerprint(lambda file: digested.append(file) or file_digest(file))  # type: ignore[func-returns-value]
        assert digested == [tmp_path / "data.zip"]

    def test_some_files_of_an_archive(self, tmp_path: Path) -> None:
        write(tmp_path / "data.zip", archive("zip", {"a.csv": CSV, "README.md": b"# read me"}))
        with pytest.raises(ConfigError, match=r"data\.zip/README\.md: unknown file extension"):
            read(str(tmp_path / "data.zip"))
        assert len(read(f"zip://*.csv::{tmp_path}/data.zip")) == 2

    def test_compressed_files_in_an_archive(self, tmp_path: Path) -> None:
        path = write(tmp_path / "data.zip", archive("zip", {"a.csv.gz": gzip.compress(CSV)}))
        assert len(values(path)) == 2

    @pytest.mark.parametrize("kind", ["zip", "", "gz"])
    def test_a_damaged_archive_is_one_error(self, tmp_path: Path, kind: str) -> None:
        whole = archive(kind, {f"{n}.csv": bytes(str(n), "ascii") * 3000 for n in range(30)})
        with pytest.raises(DataError, match=r"data\.zip"):
            read(write(tmp_path / "data.zip", whole[: len(whole) // 2]))

    def test_an_archive_without_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the archive has no files"):
            read(write(tmp_path / "data.zip", archive("zip", {})))

    def test_at_a_url(self, web: tuple[Path, str]) -> None:
        folder, url = web
        write(folder / "a.zip", archive("zip", {"a.csv": CSV}))
        assert len(values(f"{url}/a.zip")) == 2

    def test_an_encrypted_archive_is_one_error(self, tmp_path: Path) -> None:
        whole = bytearray(archive("zip", {"a.csv": CSV}))
        for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            whole[whole.index(header) + flags] |= 1  # the flag of an encrypted file
        with pytest.raises(DataError, match=r"data\.zip/a\.csv: the archive cannot be read: .*encrypted"):
            read(write(tmp_path / "data.zip", bytes(whole)))
