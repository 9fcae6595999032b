"""What a deployment's form asks for: a configuration field by field, or the name of one in conf/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hone.config.file import load_config
from hone.config.sections import RunConfig
from hone.errors import ConfigError

FOLDER = Path("conf")


def names() -> list[str]:
    """The configurations in conf/ of the working directory, by their files' names."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def chosen(config: RunConfig | str) -> RunConfig:
    """The configuration itself, or that of the file in conf/ with this name, or of the YAML file with this path.

    Raises ConfigError for a name that is not there, and as `hone.config.sections.load` does.
    """
    if isinstance(config, RunConfig):
        return config
    if config.endswith((".yaml", ".yml")):
        return load_config(Path(config))
    if config not in names():
        there = ", ".join(names()) or "none"
        raise ConfigError("is not the name of a file in conf/", where=config, fix=f"There are: {there}.")
    return load_config(FOLDER / f"{config}.yaml")


def name_of(config: Any) -> str:
    """How a run is named before its configuration is read: a RunConfig, its tree of plain values, or a file's name."""
    if isinstance(config, RunConfig):
        return config.name
    return str(config["name"]) if isinstance(config, Mapping) else Path(str(config)).stem


class _Form:
    """The names as they were when the deployment was applied, or the form."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        form, text = handler(core)["anyOf"]
        return {"anyOf": [text | {"enum": names(), "title": "A file in conf/"}, form]} if names() else form


Choice = Annotated[RunConfig | str, _Form()]
