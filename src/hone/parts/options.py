"""How a part (a source, a curation step, an objective, a method) declares its configurable options.

A part is a frozen dataclass whose fields are made by `option`. `hone.config.parts` turns it into a section
of the RunConfig. Parts do not depend on pydantic, so that objectives and methods also run where it is not installed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

REQUIRED: Any = dataclasses.MISSING


def option(default: Any, description: str, *, location: bool = False, learning: bool = False, **bounds: Any) -> Any:
    """A dataclass field with a description, and pydantic's bounds (`ge`, `gt`, `le`, `lt`, `min_length`, ...).

    Pass REQUIRED as `default` for a field that every config must set. `location` marks an option that only states where
    rows are stored, or a limit on that: it is left out of cache keys, which depend on the content. `learning` marks an
    option that only affects training: it is left out of the keys of the stages before training.
    """
    metadata = {"description": description, "location": location, "learning": learning, "bounds": bounds}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def location_options(part: type[Any]) -> set[str]:
    """The names of the options of `part` that state where its rows are stored and change none."""
    return {f.name for f in dataclasses.fields(part) if f.metadata.get("location")}


def learning(part: type[Any]) -> set[str]:
    """The names of the options of `part` that only affect training."""
    return {f.name for f in dataclasses.fields(part) if f.metadata.get("learning")}


def list_option_names(part: type[Any]) -> list[str]:
    """The names of all options of `part`."""
    return [f.name for f in dataclasses.fields(part)]
