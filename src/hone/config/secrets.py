"""Detection of passwords and tokens written into a configuration, so that they can be rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hone.display import has_secret


def contains_secret(value: Any) -> bool:
    """Whether a string in nested mappings, lists and tuples has a secret in a URL.

    A configuration is copied to MLflow, Prefect and the report, so a secret in it would be published.
    """
    return any(map(has_secret, iter_strings(value)))


def iter_strings(value: Any) -> Iterator[str]:
    """Yield every string in nested mappings, lists and tuples."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from iter_strings(inner)
