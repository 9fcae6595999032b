"""A project's folder of configurations."""

from __future__ import annotations

import difflib
from pathlib import Path

from hone.errors import ConfigError

FOLDER = Path("conf")


def list_names(project: Path = Path()) -> list[str]:
    """The names of the configurations in the project's conf/; the project is the working directory by default."""
    return sorted(file.stem for file in (project / FOLDER).glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file in conf/ with this name. Raises ConfigError, with the nearest name, if there is none."""
    names = list_names()
    if name not in names:
        similar = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {similar[0]}?" if similar else f"There are: {', '.join(names) or 'none'}."
        raise ConfigError("is not the name of a file in conf/", where=name, fix=hint)
    return FOLDER / f"{name}.yaml"
