"""The service's project: the folder whose deployments/ `hone up` applies and whose conf/ the forms offer.

Runs start there. It is chosen once: `hone up` in another project is refused, unless --project names that folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hone.config.folder import FOLDER
from hone.errors import ConfigError
from hone_app.deploy.names import FILE


def select_project(recorded: str, requested: Path | None, working_directory: Path) -> Path:
    """The resolved project folder: `requested`, else the one around the working directory.

    Raises ConfigError if that folder is no project, or is not the `recorded` one ('' for none) and was not requested.
    """
    if requested is not None:
        return _check(requested.resolve())
    here = working_directory.resolve()
    project = next((folder for folder in (here, *here.parents) if (folder / FILE).is_file()), here)
    if recorded and project != Path(recorded):
        raise ConfigError(
            f"the service belongs to another project, {recorded}",
            where=str(project),
            fix="Run `hone up` there, or `hone up --project FOLDER` to move the service to FOLDER.",
        )
    return _check(project)


def describe_names(names: Sequence[str], width: int) -> str:
    """The number of names, and as many of them as fit in `width` columns; `none` for no names."""
    text = f"{len(names)}: {', '.join(names)}" if names else "none"
    shown = len(names)
    while len(text) > width and shown:
        shown -= 1
        text = f"{len(names)}: {', '.join((*names[:shown], '...'))}"
    return text


def _check(project: Path) -> Path:
    missing = [f"no {FILE}"] if not (project / FILE).is_file() else []
    missing += ["no conf/"] if not (project / FOLDER).is_dir() else []
    if missing:
        raise ConfigError(
            f"is not a project: there is {' and '.join(missing)}",
            where=str(project),
            fix="Run `hone up` in the project's folder, or name it: `hone up --project FOLDER`.",
        )
    return project
