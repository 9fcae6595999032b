"""YAML that people write: what PyYAML accepts without a word and they did not mean is an error."""

from __future__ import annotations

from itertools import chain
from typing import Any

import yaml

MAX_VALUES = 1_000_000  # a configuration has hundreds


def load_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises yaml.YAMLError, also for dates that do not exist, for duplicate keys, for half of a surrogate pair, and for
    aliases (`*name`) that make it grow to more than MAX_VALUES values and keys.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
        count = _count_values(value, {})
    except RecursionError:
        raise yaml.YAMLError("lists or mappings are nested too deeply") from None
    except UnicodeEncodeError as fault:
        raise yaml.YAMLError(f"\\u{ord(fault.object[fault.start]):x} is half of a character") from None
    if count > MAX_VALUES:
        raise yaml.YAMLError(f"its aliases make it grow to more than {MAX_VALUES:,} values")
    return value


def _count_values(value: Any, counts: dict[int, int]) -> int:
    """The number of values and keys, those of an alias as often as it is used; `counts` has those of known containers.

    Raises UnicodeEncodeError for half of a surrogate pair.
    """
    if isinstance(value, str):
        value.encode()
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in counts:
        counts[id(value)] = MAX_VALUES  # if it contains itself
        inner = chain(value, value.values()) if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_values(item, counts) for item in inner)
    return counts[id(value)]


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
