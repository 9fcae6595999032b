"""The parameters of the flows that name something: a configuration, a source of rows, a registered model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler, TypeAdapter, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hone.config.file import change_config, load_config, parse_config
from hone.config.folder import find_config
from hone.config.parts import Part, SourcePart
from hone.config.sections import RunConfig
from hone.environment import home
from hone.tracking.links import load_version_config
from hone.tracking.reader import SCHEME, get_version
from tasks.forms import CHOICES

VERSION = "^models:/[^/@]+(/[1-9][0-9]*|@[^/@]+)$"


def resolve_config(config: RunConfig | str, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration itself, or that of a name in conf/, a YAML file's path, or a registered version.

    `changes` are `section.field=value`. Raises ConfigError for an unknown name, ModelError for an unknown version, and
    like `hone.config.file.load_config`.
    """
    if isinstance(config, str) and config.startswith(SCHEME):
        config = load_registered_config(config)
    if isinstance(config, RunConfig):
        return change_config(config, changes) if changes else config
    path = Path(config) if config.endswith((".yaml", ".yml")) else find_config(config)
    return load_config(path, changes)


def load_registered_config(uri: str) -> RunConfig:
    """The configuration of the version that `models:/NAME@ALIAS` or `models:/NAME/NUMBER` refers to."""
    tracking_uri = home().tracking_uri
    return parse_config(load_version_config(tracking_uri, get_version(tracking_uri, uri)), uri)


def config_name(config: Any) -> str:
    """The name for a run before its configuration is loaded; `config` is a RunConfig, its plain values, or a name."""
    if isinstance(config, RunConfig):
        return config.name
    if isinstance(config, str) and config.startswith(SCHEME):
        return config.removeprefix(SCHEME).replace("/", " version ").replace("@", " ")
    return str(config["name"]) if isinstance(config, Mapping) else Path(str(config)).stem


def resolve_source(source: Part | str) -> Part:
    """The source itself, or the files at a path, glob or URL."""
    if isinstance(source, Part):
        return source
    part: Part = TypeAdapter(SourcePart).validate_python({"kind": "files", "paths": [source]})
    return part


class _ConfigSchema:
    """In the JSON schema: a file in conf/, a registered version, or an object that is a whole configuration."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        file = {"title": "File in conf/", "type": "string", CHOICES: "configurations"}
        version = {"title": "Registered version", "type": "string", "pattern": VERSION}
        return {"anyOf": [file, version, _describe_whole("Whole configuration", handler(core))]}


class _SourceSchema:
    """In the JSON schema: a path, or an object that is a source."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        path = {"title": "Files", "type": "string", "minLength": 1}
        return {"anyOf": [path, _describe_whole("Other source", handler(core))]}


def _describe_whole(title: str, schema: JsonSchemaValue) -> JsonSchemaValue:
    """An object that a form shows as one JSON field: `if` and `then` check it without listing its fields."""
    options = [option for option in _list_options(schema) if "$ref" in option]
    return {
        "title": title,
        "if": True,
        "then": options[0] if len(options) == 1 else {"anyOf": options},
    }


def _list_options(schema: JsonSchemaValue) -> list[JsonSchemaValue]:
    inner = schema.get("anyOf")
    return [option for part in inner for option in _list_options(part)] if inner else [schema]


def _name_schema(*, required: bool) -> WithJsonSchema:
    """In the JSON schema: one of the registered models, or another name."""
    other: JsonSchemaValue = {"title": "Other name", "type": "string"} | ({"minLength": 1} if required else {})
    return WithJsonSchema({"anyOf": [{"title": "Registered model", "type": "string", CHOICES: "models"}, other]})


SourceChoice = Annotated[SourcePart | str, _SourceSchema()]
Choice = Annotated[RunConfig | str, _ConfigSchema()]
OptionalChoice = Annotated[RunConfig | str | None, _ConfigSchema()]
ModelName = Annotated[str, _name_schema(required=True)]
OptionalModelName = Annotated[str, _name_schema(required=False)]
