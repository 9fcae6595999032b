"""The `config` parameter of deployments: a configuration field by field, or the name of a file in conf/."""

from __future__ import annotations

import difflib
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


def list_names() -> list[str]:
    """The names of the configurations in conf/ of the working directory."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def resolve_config(config: RunConfig | str) -> RunConfig:
    """The configuration itself, or the one in conf/ with this name, or the one in the YAML file at this path.

    Raises ConfigError for an unknown name, and like `hone.config.file.load_config`.
    """
    if isinstance(config, RunConfig):
        return config
    if config.endswith((".yaml", ".yml")):
        return load_config(Path(config))
    return load_config(find_config(config))


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


class _Form:
    """In the JSON schema: the names in conf/ at the time the deployment is applied, or the configuration's form."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        form, text = handler(core)["anyOf"]
        return {"anyOf": [text | {"enum": list_names(), "title": "A file in conf/"}, form]} if list_names() else form


Choice = Annotated[RunConfig | str, _Form()]
