"""The parameters `settings` and `changes`: what a run changes in its configuration.

Prefect's server checks both against their JSON schema, so a form with a mistake is refused when it is sent. Settings
have the types and bounds of the configuration's fields. A change, `section.field=value`, must name an existing field
and give a value of its type; its bounds are checked when the run starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from flows.choice import config_name, resolve_config
from hone.config.parts import Section
from hone.config.paths import list_paths
from hone.config.sections import RunConfig
from hone.methods import METHODS

METHOD = "method.kind"
# In the order of the form.
SETTINGS = (
    *("name", "model.base", METHOD, "tokenization.max_length", "validation.on_failure"),
    *("training.epochs", "training.batch_size", "training.micro_batch_size", "training.learning_rate"),
    *("training.patience", "training.precision", "training.seed"),
)
# JSON Schema has no error messages of its own: a form shows the `enum` that refuses a value.
FORM_OF_CHANGE = "section.field=value with a field of `hone schema`, such as training.epochs=5"


def list_changes(settings: BaseModel, config: RunConfig) -> list[str]:
    """The given settings as changes of `config`. Another method takes no options of the configuration's method over."""
    values = {path: getattr(settings, _name_setting(path)) for path in SETTINGS}
    changes = [f"{path}={json.dumps(value)}" for path, value in values.items() if value is not None and path != METHOD]
    kind = values[METHOD]
    return [*changes, f"method={json.dumps({'kind': kind})}"] if kind not in (None, config.method.kind) else changes


def name_run(verb: str, parameters: Mapping[str, Any]) -> str:
    """The name of a run with these parameters, before its configuration is loaded: `finetune demo`."""
    settings = parameters.get("settings") or {}
    name = settings.get("name") if isinstance(settings, dict) else settings.name
    return f"{verb} {name or config_name(parameters['config'])}"


def resolve_changed(config: RunConfig | str, settings: BaseModel, changes: Sequence[str]) -> RunConfig:
    """The configuration with the settings and the changes. Raises as `resolve_config`."""
    resolved = resolve_config(config)
    overrides = [*list_changes(settings, resolved), *changes]
    return resolve_config(config, overrides) if overrides else resolved


def _name_setting(path: str) -> str:
    """The name in the form: the field's own, or its section's for a `kind`."""
    *_, section, name = ("", *path.split("."))
    return section if name == "kind" else name


def _build_setting(path: str) -> tuple[Any, Any]:
    """The type and FieldInfo of a setting: the configuration's, or None for no change."""
    model: Any = RunConfig
    *sections, name = path.split(".")
    if path == METHOD:
        annotation: Any = Annotated[str, Field(json_schema_extra={"enum": list(METHODS)})]
        description = str(RunConfig.model_fields["method"].description)
    else:
        for section in sections:
            model = model.model_fields[section].annotation
        field = model.model_fields[name]
        annotation, description = Annotated[(field.annotation, Field(), *field.metadata)], str(field.description)
    # The form would show null as a tab of its own, and a default as a value.
    hidden: Any = SkipJsonSchema
    return annotation | hidden[None], Field(None, description=description, json_schema_extra=_drop_default)


def _drop_default(schema: JsonSchemaValue) -> None:
    schema.pop("default", None)


class _OnlyGiven(Section):
    """A section whose values do not contain fields without a value: the form would send null for them."""

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class _ChangeSchema:
    """In the JSON schema of a change: the paths of all fields, and the values of each type."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        paths = list_paths()
        checks = [
            {
                "if": _match_paths([path for path, path_values in paths.items() if path_values == values]),
                "then": {
                    "if": {"pattern": f"^[^=]+={values.pattern}$"},
                    "else": {"enum": [f"{values.description} after ="]},
                },
            }
            for values in dict.fromkeys(paths.values())
            if values.pattern
        ]
        names = {"if": _match_paths([*paths]), "else": {"enum": [FORM_OF_CHANGE]}}
        return handler(core) | names | {"allOf": checks}


def _match_paths(paths: list[str]) -> JsonSchemaValue:
    return {"pattern": f"^({'|'.join(paths)})="}


Change = Annotated[str, _ChangeSchema()]

if TYPE_CHECKING:
    from typing import TypeAlias

    Settings: TypeAlias = BaseModel
else:
    Settings = create_model(
        "Settings",
        __base__=_OnlyGiven,
        __doc__="The settings that are changed most often.",
        **{_name_setting(path): _build_setting(path) for path in SETTINGS},
    )
