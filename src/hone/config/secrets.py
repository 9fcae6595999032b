"""Passwords and tokens written into a configuration: they are recognised, so that they can be refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# What stands in a configuration comes to stand in MLflow, in Prefect and in the report.
SECRET = re.compile(r"://[^/@\s:]*:(?!\$\{)[^@/\s]+@|[?&](?:password|passwd|pwd|token|secret)=(?!\$\{)[^&\s]+", re.I)


def strings(value: Any) -> Iterator[str]:
    """Every string in a tree of plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from strings(inner)
