"""Rows out of a Hugging Face dataset: a hub id at one commit, or a directory on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from hone.errors import ConfigError, DataError, ServiceError
from hone.parts.options import REQUIRED, option
from hone.parts.variables import expand
from hone.sources.source import RawRow
from hone.store.digests import digest_of

_OWN: dict[str, str] = {"train": "train", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class Hub:
    """Rows out of a Hugging Face dataset: a hub id at one commit, or a local directory in the hub's layout."""

    dataset: str = option(
        REQUIRED,
        "A hub id (owner/name), or a directory that load_dataset can read. ${VAR}, ${VAR:-default} and ~ are replaced.",
        location=True,
        min_length=1,
    )
    revision: str = option(
        "",
        "The commit, 40 hexadecimal digits: a branch or a tag can move and is not taken. Empty for a directory alone.",
        pattern=r"^([0-9a-f]{40})?$",
    )
    config: str = option("", "The dataset's configuration (subset), where it has several.")
    splits: dict[Literal["train", "valid", "test"], str] = option(
        {},
        "Our splits and the dataset's: {train: train, test: 'validation[:50%]'}. Empty: its train, validation and "
        "test; and where it has one split alone, its rows without a split.",
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
        """The splits' rows. Raises DataError where there is no such dataset, ServiceError where no hub answers."""
        with self._faults(), TemporaryDirectory(prefix="hone-hub-") as scratch:
            builder = self._builder(scratch)
            builder.download_and_prepare()
            name = "hub" if self._directory() else expand(self.dataset)
            for ours, theirs in self._chosen(list(builder.info.splits)):
                dataset = builder.as_dataset(split=theirs)
                names = _class_names(dataset.features)
                for number, values in enumerate(dataset, 1):
                    yield RawRow(f"{theirs}:{number}", name, _named(values, names), ours)

    def _directory(self) -> Path | None:
        """The directory, or None for a hub id, which must come with its commit."""
        path = Path(expand(self.dataset))
        if path.is_dir():
            return path
        if self.dataset.startswith(("/", ".", "~", "$")) or self.dataset.count("/") > 1:
            raise DataError("no such directory", where=str(path), fix="Mend ingest.source.dataset.")
        if not self.revision:
            raise ConfigError(
                f"the hub dataset {self.dataset} is not pinned",
                where="ingest.source.revision",
                fix=f"Give the commit that https://huggingface.co/datasets/{self.dataset}/commits/main shows.",
            )
        return None

    def _builder(self, scratch: str) -> Any:
        """What reads the dataset: the local cache's copy of the very commit, else the hub.

        A directory is read into `scratch`, for the libraries' own cache goes by size and time. `load_dataset` itself
        gives another cached commit where the hub does not answer, hence the look at what came.
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
                "the hub does not answer, and the local cache holds other commits alone",
                where=f"{repository}@{self.revision}",
                fix="Check the network, or take a commit that is here.",
            )
        return builder

    def _cached(self, repository: str) -> Any:
        """The builder of the cached copy of this commit, None where there is none."""
        from datasets import config
        from datasets.naming import camelcase_to_snakecase
        from datasets.packaged_modules.cache.cache import Cache

        *owner, name = repository.split("/")
        folder = "___".join([*owner, camelcase_to_snakecase(name)])
        found = sorted(Path(config.HF_DATASETS_CACHE).glob(f"{folder}/{self.config or '*'}/*/{self.revision}"))
        if len(found) > 1:
            names = ", ".join(path.parts[-3] for path in found)
            raise ConfigError(f"has several configurations: {names}", where=repository, fix="Set ingest.source.config.")
        if not found:
            return None
        config_name, version, commit = found[0].parts[-3:]
        return Cache(dataset_name=name, repo_id=repository, config_name=config_name, version=version, hash=commit)

    def _chosen(self, there: list[str]) -> list[tuple[str, str]]:
        """Our splits and the dataset's, in our order."""
        if self.splits:
            return [(ours, self.splits[ours]) for ours in _OWN if ours in self.splits]
        chosen = [(ours, theirs) for ours, theirs in _OWN.items() if theirs in there]
        if len(there) == 1:
            return [("", there[0])]
        if not chosen:
            raise DataError(
                f"has no train, validation or test; it has {', '.join(there)}",
                where=self.dataset,
                fix=f"Set ingest.source.splits: {{train: {there[0]}}}.",
            )
        return chosen

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Names what `datasets` raises, and keeps its progress bars off the screen meanwhile."""
        import datasets
        from datasets.exceptions import DatasetsError
        from httpx import HTTPError

        shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        where = expand(self.dataset)
        try:
            yield
        except (ConnectionError, HTTPError) as fault:
            fix = "Check the network (and HF_HUB_OFFLINE), or name a local directory."
            raise ServiceError(
                f"is not in the local cache, and the hub does not answer: {fault}", where=where, fix=fix
            ) from fault
        except (DatasetsError, FileNotFoundError, ValueError) as fault:
            fix = "Check ingest.source: dataset, revision, config and splits."
            raise DataError(f"cannot be read: {_innermost(fault)}", where=where, fix=fix) from fault
        finally:
            if shown:
                datasets.enable_progress_bars()


def _hidden(file: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(directory).parts)


def _innermost(fault: BaseException) -> str:
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return f"{type(fault).__name__}: {fault}"


def _class_names(features: Any) -> dict[str, Any]:
    """Columns whose values are numbers of classes, with what names them."""
    from datasets import ClassLabel

    return {name: feature for name, feature in features.items() if isinstance(feature, ClassLabel)}


def _named(values: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """The row with class numbers replaced by names; -1, the hub's mark for an unknown class, is null."""
    for column, feature in names.items():
        number = values[column]
        values[column] = None if number is None or number < 0 else feature.int2str(number)
    return values
