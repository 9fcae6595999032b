"""Parts provided by other installed packages: a config refers to them by kind, never by module path.

A package provides a part through an entry point in its pyproject.toml:

    [project.entry-points."hone.objectives"]
    shouting = "acme_text.shouting:Shouting"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from hone.errors import ConfigError

GROUPS = ("hone.sources", "hone.steps", "hone.objectives", "hone.methods")
# What a group was called in 0.1.
FORMER = {"hone.steps": "hone.curation"}

PartT = TypeVar("PartT")


class PartTable(Mapping[str, type[PartT]]):
    """The parts of one group by kind: those built in, and those of installed packages.

    Packages are imported when the table is first looked at, not when it is made: a package's module imports the
    protocol that lies beside the table. Looking raises ConfigError where a package cannot be imported, and where two
    parts have one kind: which one a configuration means must not depend on what else is installed.
    """

    def __init__(self, group: str, built_in: Mapping[str, type[PartT]]) -> None:
        self.group = group
        self.built_in = built_in

    def __getitem__(self, kind: str) -> type[PartT]:
        return self._parts[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @cached_property
    def _parts(self) -> dict[str, type[PartT]]:
        parts, providers = dict(self.built_in), dict.fromkeys(self.built_in, "hone")
        for entry in installed(self.group):
            package = _package(entry)
            if entry.name in providers:
                raise ConfigError(
                    f"the packages {providers[entry.name]} and {package} both provide the part {entry.name}",
                    where=f"entry point {entry.value} in {entry.group}",
                    fix=f"Rename the part in {package}, or uninstall it.",
                )
            providers[entry.name] = package
            parts[entry.name] = _load(entry)
        return parts


def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of installed packages in `group`, in the order of their kinds."""
    return tuple(entry for entry in _entry_points() if entry.group in (group, FORMER.get(group)))


def kind_of(table: Mapping[str, type[Any]], part: object) -> str:
    """The kind of the part's class in the table; raises KeyError if it has none."""
    for kind, cls in table.items():
        if cls is type(part):
            return kind
    raise KeyError(f"{type(part).__name__} is not in the table of parts")


@cache
def plugin_folders() -> dict[str, Path]:
    """The folder (or the single file) of each package that provides parts, by package name."""
    folders = {}
    for name in {entry.module.partition(".")[0] for entry in _entry_points()}:
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            folders[name] = Path(next(iter(spec.submodule_search_locations)))
        elif spec and spec.origin:
            folders[name] = Path(spec.origin)
    return folders


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    every = entry_points()
    groups = (*GROUPS, *FORMER.values())
    return tuple(
        sorted((entry for group in groups for entry in every.select(group=group)), key=lambda entry: entry.name)
    )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module.partition(".")[0]


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as fault:
        raise ConfigError(
            f"the part {entry.name} cannot be imported: {fault}",
            where=f"package {_package(entry)}, entry point {entry.value} in {entry.group}",
            fix="Correct the package, or uninstall it.",
        ) from fault
