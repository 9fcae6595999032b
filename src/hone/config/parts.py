"""Configuration sections built from parts: each dataclass of options becomes a section with the same fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from hone.config.secrets import contains_secret
from hone.curation import STEPS
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.parts.options import REQUIRED
from hone.sources import SOURCES
from hone.training.settings import Settings


class Section(BaseModel):
    """A section of the configuration: immutable, unknown fields are rejected."""

    # Prefect shows pydantic's own message about parameters that it refuses.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True)

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        for name in type(self).model_fields:
            if contains_secret(getattr(self, name)):
                raise ValueError(
                    f"{name} contains a password or token: put it into an environment variable, write ${{NAME}}"
                )
        return self


class Part(Section):
    """The options of one source, step, objective or method, selected by `kind`."""

    kind: str

    def options(self) -> dict[str, Any]:
        """The options without `kind`: keyword arguments for the part's class."""
        return self.model_dump(exclude={"kind"})


def _section(cls: type[Any], base: type[Section] = Section, **more: Any) -> type[Any]:
    """A section class for a dataclass of options: same field names, descriptions and bounds."""
    hints = get_type_hints(cls)
    fields: dict[str, Any] = dict(more)
    for option in dataclasses.fields(cls):
        default: dict[str, Any] = {"default": option.default}
        if option.default is REQUIRED:
            default = {} if option.default_factory is REQUIRED else {"default_factory": option.default_factory}
        extra = {"description": option.metadata["description"], **option.metadata["bounds"]}
        fields[option.name] = (hints[option.name], Field(**default, **extra))
    return create_model(cls.__name__, __base__=base, __doc__=cls.__doc__, **fields)


def _union(parts: Mapping[str, type[Any]]) -> Any:
    """The union of the sections of `parts`, discriminated by `kind`."""

    def part_section(kind: str, cls: type[Any]) -> type[Any]:
        # Prefect's form sends `kind` only if the schema has it as a default; for pydantic it stays required.
        field = Field(description="The kind of part.", json_schema_extra={"default": kind})
        return _section(cls, Part, kind=(Literal[kind], field))

    def spell_kind(value: Any) -> Any:
        """Kinds have dashes; underscores, as in label_conflicts, are what 0.1 wrote."""
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if isinstance(kind, str) and kind not in parts and kind.replace("_", "-") in parts:
            return {**value, "kind": kind.replace("_", "-")}
        return value

    models = tuple(part_section(kind, cls) for kind, cls in parts.items())
    if len(models) == 1:
        return models[0]
    return Annotated[reduce(or_, models), Field(discriminator="kind"), BeforeValidator(spell_kind), _Choice()]


class _Choice:
    """Writes the union as `anyOf`: Prefect's form offers a choice for `anyOf`, but only a text box for `oneOf`."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core)
        schema.pop("discriminator")
        return {"anyOf": schema.pop("oneOf")} | schema


if TYPE_CHECKING:
    from typing import TypeAlias

    SourcePart: TypeAlias = Part
    StepPart: TypeAlias = Part
    ObjectivePart: TypeAlias = Part
    MethodPart: TypeAlias = Part
    TrainingSection: TypeAlias = Section
else:
    SourcePart, StepPart = _union(SOURCES), _union(STEPS)
    ObjectivePart, MethodPart = _union(OBJECTIVES), _union(METHODS)
    TrainingSection = _section(Settings)
