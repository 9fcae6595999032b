"""The paths of all fields of the configuration, as overrides name them, and the values that each can have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hone.config.sections import RunConfig

# What YAML reads as each type.
PATTERNS = {
    "number": r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?",
    "integer": r"[+-]?\d[\d_]*",
    "boolean": "([Tt]rue|[Ff]alse|yes|no|on|off)",
}
DESCRIPTIONS = {"number": "a number", "integer": "a whole number", "boolean": "true or false"}


@dataclass(frozen=True)
class Values:
    """The values of a field: a type of PATTERNS, or choices; with neither, any text."""

    type: str = ""
    choices: tuple[str, ...] = ()
    nullable: bool = False

    @property
    def pattern(self) -> str:
        """The regular expression of a value as YAML writes it; '' for any."""
        if self.choices:
            return f"[\"']?({'|'.join(map(re.escape, self.choices))})[\"']?"
        pattern = PATTERNS.get(self.type, "")
        return f"({pattern}|null|~|)" if pattern and self.nullable else pattern

    @property
    def description(self) -> str:
        """The values in words; '' for any."""
        words = f"one of {', '.join(self.choices)}" if self.choices else DESCRIPTIONS.get(self.type, "")
        return f"{words} or null" if words and self.nullable else words


def list_paths() -> dict[str, Values]:
    """The regular expression of each path, such as `curation\\.steps\\.\\d+\\.min_rows`, and its values.

    Where parts of different kinds have a field of the same name, its values are those of each of them.
    """
    schema = RunConfig.model_json_schema()
    paths: dict[str, Values] = {}
    for path, values in _walk(schema, schema["$defs"], ""):
        paths[path] = _merge(paths.get(path, values), values)
    return paths


def _walk(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Iterator[tuple[str, Values]]:
    """The field at `path` and all fields in it."""
    nodes = _list_alternatives(node, definitions)
    if path:
        yield path, _find_values(nodes)
    prefix = path + r"\." if path else ""
    for alternative in nodes:
        for name, field in alternative.get("properties", {}).items():
            yield from _walk(field, definitions, prefix + re.escape(name))
        if alternative.get("additionalProperties"):
            yield prefix + "[^=]+", Values()
        for item in _list_alternatives(alternative.get("items", {}), definitions):
            yield from _walk(item, definitions, prefix + r"\d+")
            kind = item.get("properties", {}).get("kind", {}).get("const", "")
            if kind:  # an item of a list of parts is named by its kind, too
                yield from _walk(item, definitions, prefix + re.escape(kind).replace(r"\-", "[-_]"))


def _list_alternatives(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas that a value can have, without references."""
    if "$ref" in node:
        return _list_alternatives(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node:
        return [inner for option in node["anyOf"] for inner in _list_alternatives(option, definitions)]
    return [node] if node else []


def _find_values(nodes: list[Mapping[str, Any]]) -> Values:
    nullable = any(node.get("type") == "null" for node in nodes)
    typed = [node for node in nodes if node.get("type") != "null"]
    if len(typed) != 1:
        return Values()
    [node] = typed
    choices = node.get("enum", [node["const"]] if "const" in node else [])
    return Values(node.get("type", "") if not choices else "", tuple(map(str, choices)), nullable)


def _merge(first: Values, second: Values) -> Values:
    if first == second:
        return first
    if first.choices and second.choices:
        return Values(choices=tuple(dict.fromkeys(first.choices + second.choices)))
    return Values()
