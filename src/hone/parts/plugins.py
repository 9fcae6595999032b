"""Parts that other installed packages bring: a config names their kind, and never code.

A package offers a part by an entry point, in its own pyproject.toml:

    [project.entry-points."hone.objectives"]
    shouting = "acme_text.shouting:Shouting"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hone.errors import ConfigError

GROUPS = ("hone.sources", "hone.curation", "hone.objectives", "hone.methods")


def installed(group: str) -> dict[str, Any]:
    """The parts that packages offer in `group`, by kind; raises ConfigError where one cannot be imported."""
    return {found.name: _load(found) for found in _found() if found.group == group}


def kind_of(table: Mapping[str, type[Any]], part: object) -> str:
    """The kind under which the part's class is in the table; raises KeyError where it is in none."""
    for kind, cls in table.items():
        if cls is type(part):
            return kind
    raise KeyError(f"{type(part).__name__} is not in the table of parts")


@cache
def homes() -> dict[str, Path]:
    """The folders, or lone files, of the packages that offer parts, by the packages' names."""
    places = {}
    for name in {found.module.partition(".")[0] for found in _found()}:
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            places[name] = Path(next(iter(spec.submodule_search_locations)))
        elif spec and spec.origin:
            places[name] = Path(spec.origin)
    return places


@cache
def _found() -> tuple[EntryPoint, ...]:
    every = entry_points()
    return tuple(found for group in GROUPS for found in every.select(group=group))


def _load(found: EntryPoint) -> Any:
    try:
        return found.load()
    except (ImportError, AttributeError) as fault:
        package = found.dist.name if found.dist else found.module
        raise ConfigError(
            f"the part {found.name} cannot be imported: {fault}",
            where=f"package {package}, entry point {found.value} in {found.group}",
            fix="Mend the package, or uninstall it.",
        ) from fault
