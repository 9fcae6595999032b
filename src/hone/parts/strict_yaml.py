"""YAML that people write: what PyYAML accepts without a word and they did not mean is an error."""

from __future__ import annotations

from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """The value of a YAML document. Raises yaml.YAMLError, also for dates that do not exist and for duplicate keys."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("lists or mappings are nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that duplicate keys and dates such as 2026-13-01 are errors with a line."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as fault:
            raise yaml.constructor.ConstructorError(None, None, f"{node.value}: {fault}", node.start_mark) from None

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # A mapping has its own keys alone before it is flattened: afterwards those of `<<` stand before them.
        if id(node) not in self._checked:
            self._checked.add(id(node))
            own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            keys = [self.construct_object(key, deep=True) for key in own]
            duplicates = sorted({str(key) for key in keys if keys.count(key) > 1})
            if duplicates:
                raise yaml.YAMLError(f"duplicate key {', '.join(duplicates)}, line {node.start_mark.line + 1}")
        super().flatten_mapping(node)
