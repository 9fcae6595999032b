"""Text and its label, in the forms in which they are published."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.errors import DataError
from hone.sources.files import Files
from hone.sources.source import RawRow
from hone.store.digests import file_digest


def read(*paths: Path | str, **options: Any) -> list[RawRow]:
    return list(Files(paths=[str(path) for path in paths], **options).rows())


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestLines:
    def test_the_label_is_the_first_word(self, tmp_path: Path) -> None:
        path = write(tmp_path / "train.txt", "DESC:manner How did serfdom  end ?\n\n3 A fine film .\nx\ty z\r\nalone\n")
        *rows, alone = read(path, format="labelled")
        assert [row.values for row in rows] == [
            {"label": "DESC:manner", "text": "How did serfdom  end ?"},
            {"label": "3", "text": "A fine film ."},
            {"label": "x", "text": "y z"},
        ]
        assert alone.refused == "a label without a text: line 5"

    def test_fasttext_is_recognised(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.txt", "__label__x some text\n__label__x __label__y more __label__ text\n__label__x\n"
        )
        one, several, none = read(path)
        assert one.values == {"labels": ["x"], "label": "x", "text": "some text"}
        assert several.values == {"labels": ["x", "y"], "text": "more __label__ text"}
        assert none.refused == "a label without a text: line 3"
        assert [row.values["text"] for row in read(path, format="txt")][2] == "__label__x"


class TestJsonOfSplits:
    ROWS: ClassVar[dict[str, Any]] = {
        "train": [["book a flight", "travel"], ["hi", "greet"]],
        "val": [["hello", "greet"]],
        "test": [],
    }

    @pytest.mark.parametrize("indent", [None, 1])
    def test_lists_of_pairs_by_split(self, tmp_path: Path, indent: int | None) -> None:
        rows = read(write(tmp_path / "data.json", json.dumps(self.ROWS, indent=indent)))
        assert [(row.split, row.values) for row in rows] == [
            ("train", {"text": "book a flight", "label": "travel"}),
            ("train", {"text": "hi", "label": "greet"}),
            ("valid", {"text": "hello", "label": "greet"}),
        ]

    def test_keys_that_are_no_splits_are_read_or_left_out_on_demand_alone(self, tmp_path: Path) -> None:
        path = write(tmp_path / "data.json", json.dumps(self.ROWS | {"oos_train": [["x", "oos"]]}))
        with pytest.raises(DataError, match="its keys oos_train are not names of splits"):
            read(path)
        assert len(read(path, split_keys={"train": "train", "valid": "val"})) == 3
        with pytest.raises(DataError, match="has no key 'dev'"):
            read(path, split_keys={"valid": "dev"})

    def test_objects_other_columns_and_what_is_neither(self, tmp_path: Path) -> None:
        path = write(tmp_path / "data.json", json.dumps({"train": [{"a": 1}, ["x", "y", "z"], ["x"]]}))
        one, three, short = read(path, column_names=["a", "b", "c"])
        assert (one.values, three.values) == ({"a": 1}, {"a": "x", "b": "y", "c": "z"})
        assert short.refused == "neither an object nor [a, b, c]"

    def test_a_row_in_jsonl_is_a_row(self, tmp_path: Path) -> None:
        text = '{"train": ["x"], "tokens": ["y"]}\n'
        assert read(write(tmp_path / "a.json", text))[0].values == json.loads(text)
        assert len(read(write(tmp_path / "b.json", text * 2))) == 2
        with pytest.raises(DataError, match="neither a JSON array nor JSON lines"):
            read(write(tmp_path / "c.json", '{\n"train": 5}'))


class TestFolders:
    def test_one_file_per_text_in_a_folder_per_class(self, tmp_path: Path) -> None:
        for split, label, number in (("train", "pos", 1), ("train", "neg", 2), ("test", "pos", 1)):
            write(tmp_path / split / label / f"{number}.txt", f"{split} {label}\r\nmore\n")
        splits = {"train": "train/*/*", "test": "test/*/*"}
        rows = read(tmp_path / "*/*/*.txt", format="folders", splits=splits)
        assert [(row.split, row.values) for row in rows] == [
            ("test", {"label": "pos", "text": "test pos\nmore"}),
            ("train", {"label": "neg", "text": "train neg\nmore"}),
            ("train", {"label": "pos", "text": "train pos\nmore"}),
        ]
        assert rows[0].where == "test/pos/1.txt:1"

    def test_a_folder_per_class_in_an_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            packed.writestr("pos/1", "fine")
        assert read(tmp_path / "a.zip", format="folders")[0].values == {"label": "pos", "text": "fine"}

    def test_columns_of_hive_folders(self, tmp_path: Path) -> None:
        for folder in ("label=pos/lang=en", "label=a%20b/lang=__HIVE_DEFAULT_PARTITION__"):
            (tmp_path / folder).mkdir(parents=True)
            pq.write_table(pa.table({"text": ["x"]}), tmp_path / folder / "part-0.parquet")
        rows = read(tmp_path / "**/*.parquet")
        assert [row.values for row in rows] == [
            {"label": "a b", "lang": None, "text": "x"},
            {"label": "pos", "lang": "en", "text": "x"},
        ]

    def test_a_column_that_contradicts_its_folder_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "year=2024/a.csv", "text,year\na,2024\nb,2025\n")
        assert [row.refused for row in read(tmp_path / "*/a.csv")] == ["", "year is not that of its folder"]

    def test_the_folders_belong_to_the_fingerprint(self, tmp_path: Path) -> None:
        def fingerprint(label: str, form: str) -> str:
            write(tmp_path / form / label / "data" / label / "a.txt", "text\n")
            return Files(paths=[f"{tmp_path}/{form}/{label}/data/*/a.txt"], format=form).fingerprint(file_digest)

        assert fingerprint("pos", "folders") != fingerprint("neg", "folders")
        assert fingerprint("label=pos", "auto") != fingerprint("label=neg", "auto")

    @pytest.mark.parametrize("pattern", ["a.csv", "*.csv", "label=*/a.csv", "**/a.csv", "data.zip"])
    def test_the_folders_in_which_the_data_is_give_no_columns(self, tmp_path: Path, pattern: str) -> None:
        rows, fingerprints = [], set()
        for place in ("env=test", "env=prod/team=search"):
            write(tmp_path / place / "a.csv", "text\nx\n")
            write(tmp_path / place / "label=pos/a.csv", "text\ny\n")
            with zipfile.ZipFile(tmp_path / place / "data.zip", "w") as packed:
                packed.writestr(zipfile.ZipInfo("label=pos/a.csv"), "text\ny\n")
            source = Files(paths=[f"{tmp_path}/{place}/{pattern}"])
            rows.append([row.values for row in source.rows()])
            fingerprints.add(source.fingerprint(file_digest))
        alone, labelled = {"text": "x"}, {"text": "y", "label": "pos"}
        expected = {"a.csv": [alone], "*.csv": [alone], "**/a.csv": [alone, labelled]}
        assert rows == [expected.get(pattern, [labelled])] * 2
        assert len(fingerprints) == 1

    def test_folders_of_column_files_give_columns_if_a_wildcard_finds_them(self, tmp_path: Path) -> None:
        write(tmp_path / "env=prod/lang=en/in", "x\n")
        options = {"format": "lines", "column_files": {"text": "in"}}
        assert read(tmp_path / "env=prod/*", **options)[0].values == {"text": "x", "lang": "en"}
        assert read(tmp_path / "env=prod/lang=en", **options)[0].values == {"text": "x"}


def test_columns_that_have_another_name_in_one_split(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,summary\na,x\n")
    write(tmp_path / "test.csv", "text,summary1\nb,y\n")
    write(tmp_path / "both.csv", "text,summary1,summary\nb,y,z\n")
    rows = read(tmp_path / "t*.csv", aliases={"summary1": "summary"})
    assert [row.values for row in rows] == [{"text": "b", "summary": "y"}, {"text": "a", "summary": "x"}]
    assert read(tmp_path / "both.csv", aliases={"summary1": "summary"})[0].refused == "has both summary1 and summary"
