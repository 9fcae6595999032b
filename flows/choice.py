"""What a deployment's form asks for: a configuration field by field, or the name of one in conf/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hone.config import RunConfig, load
from hone.errors import ConfigError

FOLDER = Path("conf")


def names() -> list[str]:
    """The configurations in conf/ of the working directory, by their files' names."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def chosen(value: Any) -> Any:
    """The configuration that a name stands for; all else as it is. Raises ValueError for a name that is not there."""
    if not isinstance(value, str):
        return value
    if value not in names():
        raise ValueError(f"is not the name of a file in {FOLDER}: there are {', '.join(names())}")
    try:
        return load(FOLDER / f"{value}.yaml")
    except ConfigError as fault:
        raise ValueError(str(fault)) from None


class _OrName:
    """Adds the names to the form, as they were when the deployment was applied."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        name = {"type": "string", "enum": names(), "title": "A file in conf/"}
        form = handler(core)
        return {"anyOf": [name, form]} if name["enum"] else form


Choice = Annotated[RunConfig, BeforeValidator(chosen), _OrName()]
