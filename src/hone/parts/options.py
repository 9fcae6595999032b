"""How a part (a source, a curation step, an objective, a method) declares what a config may set.

A part is a frozen dataclass whose fields are made by `option`. `hone.config.sections` turns it into a section
of the RunConfig. Parts need no pydantic, so that objectives and methods also run where there is none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

REQUIRED: Any = dataclasses.MISSING


def option(default: Any, description: str, *, location: bool = False, learning: bool = False, **bounds: Any) -> Any:
    """A dataclass field with a description, and pydantic's bounds (`ge`, `gt`, `le`, `lt`, `min_length`, ...).

    `default` is REQUIRED for a field that every config must set. `location` marks an option that says
    where rows lie and not what they are: it is left out of cache keys, for which the content counts. `learning` marks
    one that says how rows are learned from: it is left out of the keys of the stages before training.
    """
    metadata = {"description": description, "location": location, "learning": learning, "bounds": bounds}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def locations(part: type[Any]) -> set[str]:
    """The names of the options of `part` that only say where its rows lie."""
    return {f.name for f in dataclasses.fields(part) if f.metadata.get("location")}


def learning(part: type[Any]) -> set[str]:
    """The names of the options of `part` that only say how rows are learned from."""
    return {f.name for f in dataclasses.fields(part) if f.metadata.get("learning")}
