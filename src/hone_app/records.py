"""The service's own JSON files: a person, a disk or another release may have changed what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from hone.errors import StoreError

Kind = TypeVar("Kind")


def read_json(path: Path, kind: type[Kind], fix: str) -> Kind:
    """What one of Hone's own JSON files holds: a dataclass, or a dictionary with the types of its values.

    Raises StoreError, with what to do, if it holds anything else.
    """
    try:
        return parse_json(path.read_bytes(), kind)
    except ValueError as fault:
        raise StoreError(f"is damaged: {fault}", where=str(path), fix=fix) from fault


def parse_json(content: bytes | str, kind: type[Kind]) -> Kind:
    """The JSON text as a dataclass or a dictionary, each part of the type that is declared for it.

    Raises ValueError with the first part that is not.
    """
    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as fault:
        [first, *_] = fault.errors(include_url=False, include_input=False, include_context=False)
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
