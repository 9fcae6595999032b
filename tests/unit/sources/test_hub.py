"""Hub: a directory is read as it is now, a hub id at its commit and no other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.errors import ConfigError, DataError, ServiceError
from hone.sources.hub import Hub
from hone.sources.ingest import ingest
from hone.store.digests import file_digest

ONE, OTHER = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of datasets, and no hub. Both are read from the environment once, at import: set there, too."""
    import datasets
    import huggingface_hub.constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A dataset in the hub's layout: three splits."""
    home = tmp_path / "tickets"
    home.mkdir()
    for split, rows in {"train": "a,x\nb,y\n", "validation": "c,x\n", "test": "d,y\n"}.items():
        (home / f"{split}.csv").write_text(f"text,label\n{rows}")
    return home


def read(dataset: Path | str, **options: Any) -> list[tuple[str, str, str]]:
    return [(row.where, row.split, row.values["text"]) for row in Hub(dataset=str(dataset), **options).rows()]


def cached(directory: Path, cache: Path, repository: str, commit: str, config: str = "default") -> None:
    """Puts the directory's dataset into the cache as `load_dataset` leaves one that came from the hub."""
    from datasets import load_dataset_builder

    files = {file.stem: str(file) for file in directory.glob("*.csv")}
    builder = load_dataset_builder("csv", data_files=files, cache_dir=str(cache))
    folder = cache / repository.replace("/", "___") / config / "0.0.0" / commit
    builder.dataset_name, builder.info.dataset_name = (repository.split("/")[-1],) * 2
    builder.config.name = builder.info.config_name = config
    builder.download_and_prepare(str(folder))


class TestDirectory:
    def test_class_numbers_become_names_in_lists_as_well(self, tmp_path: Path) -> None:
        from datasets import ClassLabel, Dataset, Features, List, Value

        label = ClassLabel(names=["O", "B-X"])
        features = Features({"text": Value("string"), "label": label, "tags": List(label)})
        columns = {"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}
        (tmp_path / "data").mkdir()
        Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "data" / "train.parquet"))
        rows = [row.values for row in Hub(dataset=str(tmp_path / "data")).rows()]
        assert [(row["label"], row["tags"]) for row in rows] == [("B-X", ["O", "B-X"]), (None, [])]

    def test_its_splits_by_our_names(self, directory: Path) -> None:
        assert read(directory) == [
            ("train:1", "train", "a"),
            ("train:2", "train", "b"),
            ("validation:1", "valid", "c"),
            ("test:1", "test", "d"),
        ]

    def test_splits_and_slices_of_the_config(self, directory: Path) -> None:
        splits: Any = {"test": "train[:50%]", "train": "test+validation"}
        assert [row[1:] for row in read(directory, splits=splits)] == [("train", "d"), ("train", "c"), ("test", "a")]

    def test_one_split_alone_is_none(self, directory: Path) -> None:
        for split in ("validation", "test"):
            (directory / f"{split}.csv").unlink()
        assert [row[1] for row in read(directory)] == ["", ""]

    def test_a_change_that_keeps_size_and_time_is_seen(self, directory: Path) -> None:
        file = directory / "train.csv"
        before, print_before = file.stat(), Hub(dataset=str(directory)).fingerprint(file_digest)
        assert read(directory)[0][2] == "a"
        file.write_text("text,label\nA,x\nb,y\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert read(directory)[0][2] == "A"
        assert Hub(dataset=str(directory)).fingerprint(file_digest) != print_before

    def test_the_fingerprint_is_of_the_files_wherever_they_lie(self, directory: Path, tmp_path: Path) -> None:
        before = Hub(dataset=str(directory)).fingerprint(file_digest)
        moved = directory.rename(tmp_path / "moved")
        (moved / ".git").mkdir()
        (moved / ".git/index").write_text("no part of the data")
        assert Hub(dataset=str(moved)).fingerprint(file_digest) == before

    def test_classes_come_by_name(self, tmp_path: Path) -> None:
        from datasets import ClassLabel, Dataset, Features, Value

        features = Features({"text": Value("string"), "label": ClassLabel(names=["bug", "wish"])})
        data = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
        (tmp_path / "classes").mkdir()
        data.to_parquet(tmp_path / "classes/train.parquet")
        rows = Hub(dataset=str(tmp_path / "classes")).rows()
        assert [row.values["label"] for row in rows] == ["wish", "bug", None]

    @pytest.mark.parametrize(
        "odd",
        [
            pa.array([2**62, 1], pa.timestamp("us")),
            pa.array([2**30, 1], pa.date32()),
            pa.array([2**62, 1], pa.duration("s")),
            pa.array([[2**62], [1]], pa.list_(pa.timestamp("us"))),
            pa.array([1, 1], pa.timestamp("us", tz="Mars/Phobos")),
            pa.array([[1], [1]], pa.list_(pa.timestamp("us", tz="Mars/Phobos"))),
        ],
    )
    def test_a_date_that_python_cannot_express_refuses_a_row_only_where_it_is_needed(
        self, tmp_path: Path, odd: pa.Array
    ) -> None:
        (tmp_path / "data").mkdir()
        pq.write_table(pa.table({"text": ["a", "b"], "odd": odd}), tmp_path / "data" / "train.parquet")
        source = Hub(dataset=str(tmp_path / "data"))
        options: dict[str, Any] = {"rename": {}, "keep": [], "max_refused": 1.0}
        assert ingest(source, tmp_path, columns=["text"], **options).rows == 2
        if "Mars" not in str(odd.type):
            facts = ingest(source, tmp_path, columns=["text", "odd"], **options).facts
            assert (facts["rows"], facts["reasons"]) == (1, {"odd is not text": 1})

    def test_the_column_split_of_a_dataset_with_one_split_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        table = pa.table({"text": ["a", "b", "c"], "label": ["x", "y", "x"], "split": ["train", "dev", "test"]})
        pq.write_table(table, tmp_path / "data" / "train.parquet")
        pq.write_table(table.rename_columns(["text", "label", "fold"]), tmp_path / "data2.parquet")
        options: dict[str, Any] = {"columns": ["text", "label"], "rename": {}, "keep": [], "max_refused": 0.0}

        def splits(**source: Any) -> list[str]:
            hub = Hub(dataset=str(tmp_path / "data"), **source)
            ingest(hub, tmp_path, **options, split_column=hub.split_column)
            return list(pq.read_table(tmp_path / "rows.parquet")["split"].to_pylist())

        assert splits() == ["train", "valid", "test"]
        assert splits(split_column="") == ["", "", ""]
        (tmp_path / "data2.parquet").rename(tmp_path / "data" / "train.parquet")
        assert splits(split_column="fold") == ["train", "valid", "test"]

    def test_a_variable_in_its_name(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TICKETS", str(directory))
        assert len(read("${TICKETS}")) == 4

    def test_faults(self, directory: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such directory"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match=r"Unknown split|unknown split|Bad split"):
            read(directory, splits={"train": "dev"})
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / "empty")

    def test_nothing_is_left_behind(self, directory: Path, offline: Path) -> None:
        read(directory)
        assert not [path for path in offline.rglob("*") if path.is_file()]


class TestHubId:
    def test_it_must_be_pinned(self) -> None:
        with pytest.raises(ConfigError, match=r"ingest\.source\.revision: the hub dataset owner/tickets is not pinned"):
            read("owner/tickets")
        with pytest.raises(ConfigError, match="not pinned"):
            Hub(dataset="owner/tickets").fingerprint(file_digest)

    def test_the_fingerprint_is_the_id_and_the_commit(self) -> None:
        assert Hub(dataset="owner/tickets", revision=ONE).fingerprint(file_digest) == f"owner/tickets@{ONE}"

    def test_unknown_and_offline(self) -> None:
        with pytest.raises(ServiceError, match="owner/none: is not in the local cache, and the hub does not answer"):
            read("owner/none", revision=ONE)

    def test_the_cached_commit_and_no_newer_one(self, directory: Path, offline: Path) -> None:
        cached(directory, offline, "owner/tickets", ONE)
        (directory / "train.csv").write_text("text,label\nnewer,x\n")
        cached(directory, offline, "owner/tickets", OTHER)
        assert read("owner/tickets", revision=ONE)[0] == ("train:1", "train", "a")
        assert read("owner/tickets", revision=OTHER)[0] == ("train:1", "train", "newer")
        with pytest.raises(ServiceError, match="only has other commits"):
            read("owner/tickets", revision="3" * 40)

    def test_a_configuration_must_be_named_where_there_are_two(self, directory: Path, offline: Path) -> None:
        for config in ("en", "de"):
            cached(directory, offline, "owner/tickets", ONE, config)
        with pytest.raises(ConfigError, match="has several configurations: de, en"):
            read("owner/tickets", revision=ONE)
        assert len(read("owner/tickets", revision=ONE, config="en")) == 4


def test_the_config_takes_commits_alone() -> None:
    from hone.config.file import parse_config

    tree = {"name": "x", "model": {"base": "x"}, "ingest": {"source": {"kind": "hub", "dataset": "owner/tickets"}}}
    tree["ingest"]["source"]["revision"] = ONE  # type: ignore[index]
    parse_config(tree)
    tree["ingest"]["source"]["revision"] = "main"  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"ingest\.source\.revision"):
        parse_config(tree)
