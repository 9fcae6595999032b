"""Rows of a Hugging Face dataset: a hub id at a commit, or a local directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from hone.errors import ConfigError, DataError, ServiceError
from hone.parts.options import REQUIRED, option
from hone.parts.variables import expand, hide_values
from hone.sources.formats.arrow_values import list_values
from hone.sources.formats.class_names import find_class_names, name_classes
from hone.sources.source import RawRow
from hone.sources.splits import DEFAULT_COLUMN
from hone.splits import TEST, TRAIN, VALID, Split
from hone.store.digests import digest_of

_BATCH_ROWS = 1000  # rows in memory as Python objects
# Our names for splits, and the hub's.
_HUB_SPLITS: dict[str, str] = {TRAIN: "train", VALID: "validation", TEST: "test"}


@dataclass(frozen=True)
class Hub:
    """Rows of a Hugging Face dataset: a hub id at a commit, or a local directory in the hub's layout."""

    dataset: str = option(
        REQUIRED,
        "A hub id (owner/name), or a directory that load_dataset can read. ${VAR}, ${VAR:-default} and ~ are replaced.",
        location=True,
        min_length=1,
    )
    revision: str = option(
        "",
        "The commit, 40 hexadecimal digits; branches and tags can move and are not accepted. Empty for a directory.",
        pattern=r"^([0-9a-f]{40})?$",
    )
    config: str = option("", "The dataset's configuration (subset), if it has several.")
    splits: dict[Split, str] = option(
        {},
        "Maps splits to the dataset's: {train: train, test: 'validation[:50%]'}. If empty: its train, validation "
        "and test; a dataset with a single split counts as not split.",
    )
    split_column: str = option(
        DEFAULT_COLUMN,
        "The column with each row's split: train, validation, dev, test, ... The column split counts only if its values"
        " are such names. Empty: no column.",
    )

    libraries: ClassVar[tuple[str, ...]] = ("datasets",)

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """The id and the commit; for a directory, a digest over its files' names and contents."""
        directory = self._directory()
        if directory is None:
            return f"{expand(self.dataset)}@{self.revision}"
        files = [file for file in sorted(directory.rglob("*")) if file.is_file() and not _hidden(file, directory)]
        return digest_of({str(file.relative_to(directory)): digest(file) for file in files})

    def rows(self) -> Iterator[RawRow]:
        """The splits' rows. Raises DataError if there is no such dataset, ServiceError if the hub does not answer."""
        with self._faults(), TemporaryDirectory(prefix="hone-hub-") as scratch:
            builder = self._builder(scratch)
            builder.download_and_prepare()
            name = "hub" if self._directory() else expand(self.dataset)
            for ours, theirs in self._chosen(list(builder.info.splits)):
                dataset = builder.as_dataset(split=theirs)
                namers = find_class_names(dataset.features.to_dict())
                for number, values in enumerate(_list_rows(dataset), 1):
                    yield RawRow(f"{theirs}:{number}", name, name_classes(values, namers), ours)

    def _directory(self) -> Path | None:
        """The directory, or None for a hub id; raises ConfigError for a hub id without a commit."""
        path = Path(expand(self.dataset))
        if path.is_dir():
            return path
        if self.dataset.startswith(("/", ".", "~", "$")) or self.dataset.count("/") > 1:
            raise DataError("no such directory", where=self.dataset, fix="Correct ingest.source.dataset.")
        if not self.revision:
            raise ConfigError(
                f"the hub dataset {self.dataset} is not pinned",
                where="ingest.source.revision",
                fix=f"Set it to a commit listed at https://huggingface.co/datasets/{self.dataset}/commits/main.",
            )
        return None

    def _builder(self, scratch: str) -> Any:
        """The dataset's builder: from the local cache if it has exactly this commit, else from the hub.

        A directory is read into `scratch`, because the library's cache goes by size and time. If the hub does not
        answer, `load_dataset_builder` silently returns another cached commit, hence the check of its hash.
        """
        from datasets import load_dataset_builder

        if directory := self._directory():
            return load_dataset_builder(str(directory), self.config or None, cache_dir=scratch)
        repository = expand(self.dataset)
        if cached := self._cached(repository):
            return cached
        builder = load_dataset_builder(repository, self.config or None, revision=self.revision)
        if builder.hash != self.revision:
            raise ServiceError(
                "the hub does not answer, and the local cache only has other commits",
                where=f"{self.dataset}@{self.revision}",
                fix="Check the network, or choose a commit that is cached.",
            )
        return builder

    def _cached(self, repository: str) -> Any:
        """The builder for the cached copy of this commit, or None."""
        from datasets import config
        from datasets.naming import camelcase_to_snakecase
        from datasets.packaged_modules.cache.cache import Cache

        *owner, name = repository.split("/")
        folder = "___".join([*owner, camelcase_to_snakecase(name)])
        cached_copies = sorted(Path(config.HF_DATASETS_CACHE).glob(f"{folder}/{self.config or '*'}/*/{self.revision}"))
        if len(cached_copies) > 1:
            names = ", ".join(path.parts[-3] for path in cached_copies)
            raise ConfigError(f"has several configurations: {names}", where=repository, fix="Set ingest.source.config.")
        if not cached_copies:
            return None
        config_name, version, commit = cached_copies[0].parts[-3:]
        return Cache(dataset_name=name, repo_id=repository, config_name=config_name, version=version, hash=commit)

    def _chosen(self, available: list[str]) -> list[tuple[str, str]]:
        """Pairs of a split and the dataset's name for it, in the order train, valid, test."""
        if self.splits:
            return [(ours, self.splits[ours]) for ours in _HUB_SPLITS if ours in self.splits]
        chosen = [(ours, theirs) for ours, theirs in _HUB_SPLITS.items() if theirs in available]
        if len(available) == 1:
            return [("", available[0])]
        if not chosen:
            raise DataError(
                f"has no train, validation or test; it has {', '.join(available)}",
                where=self.dataset,
                fix=f"Set ingest.source.splits: {{train: {available[0]}}}.",
            )
        return chosen

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Translates the exceptions of `datasets` into Hone's, and hides its progress bars meanwhile."""
        import datasets
        from datasets.exceptions import DatasetsError
        from httpx import HTTPError

        bars_were_enabled = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        where = self.dataset
        try:
            yield
        except (ConnectionError, HTTPError) as fault:
            fix = "Check the network (and HF_HUB_OFFLINE), or name a local directory."
            raise ServiceError(
                f"is not in the local cache, and the hub does not answer: {hide_values(str(fault), where)}",
                where=where,
                fix=fix,
            ) from fault
        except (DatasetsError, FileNotFoundError, ValueError) as fault:
            fix = "Check ingest.source: dataset, revision, config and splits."
            raise DataError(f"cannot be read: {hide_values(_innermost(fault), where)}", where=where, fix=fix) from fault
        finally:
            if bars_were_enabled:
                datasets.enable_progress_bars()


def _list_rows(dataset: Any) -> Iterator[dict[str, Any]]:
    """The rows of a dataset, `Unreadable` for values that Python does not have: its own iteration stops at these."""
    for table in dataset.with_format("arrow").iter(_BATCH_ROWS):
        columns = {name: list_values(table[name]) for name in table.column_names}
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _hidden(file: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(directory).parts)


def _innermost(fault: BaseException) -> str:
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return f"{type(fault).__name__}: {fault}"
