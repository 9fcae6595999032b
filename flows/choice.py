"""The parameters of the flows that name something: a configuration, a registered model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hone.config.file import change_config, load_config
from hone.config.sections import RunConfig
from hone.errors import ConfigError
from tasks.forms import CHOICES

FOLDER = Path("conf")


def list_names() -> list[str]:
    """The names of the configurations in conf/ of the working directory."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def resolve_config(config: RunConfig | str, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration itself, or the one in conf/ with this name, or the one in the YAML file at this path.

    `changes` are `section.field=value`. Raises ConfigError for an unknown name, and like `hone.config.file.load_config`.
    """
    if isinstance(config, RunConfig):
        return change_config(config, changes) if changes else config
    path = Path(config) if config.endswith((".yaml", ".yml")) else find_config(config)
    return load_config(path, changes)


def find_config(name: str) -> Path:
    """The file in conf/ with this name. Raises ConfigError, with the nearest name, if there is none."""
    names = list_names()
    if name not in names:
        similar = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {similar[0]}?" if similar else f"There are: {', '.join(names) or 'none'}."
        raise ConfigError("is not the name of a file in conf/", where=name, fix=hint)
    return FOLDER / f"{name}.yaml"


def config_name(config: Any) -> str:
    """The name for a run before its configuration is loaded; `config` is a RunConfig, its plain values, or a name."""
    if isinstance(config, RunConfig):
        return config.name
    return str(config["name"]) if isinstance(config, Mapping) else Path(str(config)).stem


class _ConfigSchema:
    """In the JSON schema: a file in conf/, or an object that is a whole configuration.

    A form shows the object as one JSON field: `if` and `then` check it on the server without listing its fields.
    """

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = next(option for option in handler(core)["anyOf"] if "$ref" in option)
        return {
            "anyOf": [
                {"title": "File in conf/", "type": "string", CHOICES: "configurations"},
                {"title": "Whole configuration", "type": "object", "if": True, "then": whole},
            ]
        }


Choice = Annotated[RunConfig | str, _ConfigSchema()]
OptionalChoice = Annotated[RunConfig | str | None, _ConfigSchema()]
ModelName = Annotated[
    str,
    WithJsonSchema(
        {
            "anyOf": [
                {"title": "Registered model", "type": "string", CHOICES: "models"},
                {"title": "Other name", "type": "string"},
            ]
        }
    ),
]
