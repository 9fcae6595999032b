"""Parts provided by other installed packages: a config refers to them by kind, never by module path.

A package provides a part through an entry point in its pyproject.toml:

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


def load_plugins(group: str) -> dict[str, Any]:
    """The parts that packages provide in `group`, by kind; raises ConfigError if one cannot be imported."""
    return {entry_point.name: _load(entry_point) for entry_point in _entry_points() if entry_point.group == group}


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
    for name in {entry_point.module.partition(".")[0] for entry_point in _entry_points()}:
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            folders[name] = Path(next(iter(spec.submodule_search_locations)))
        elif spec and spec.origin:
            folders[name] = Path(spec.origin)
    return folders


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    installed_points = entry_points()
    return tuple(entry_point for group in GROUPS for entry_point in installed_points.select(group=group))


def _load(entry_point: EntryPoint) -> Any:
    try:
        return entry_point.load()
    except (ImportError, AttributeError) as fault:
        package = entry_point.dist.name if entry_point.dist else entry_point.module
        raise ConfigError(
            f"the part {entry_point.name} cannot be imported: {fault}",
            where=f"package {package}, entry point {entry_point.value} in {entry_point.group}",
            fix="Fix the package, or uninstall it.",
        ) from fault
