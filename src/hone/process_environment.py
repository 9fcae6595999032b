"""Environment variables that a library reads, set only while it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ALL_CORES = {"TOKENIZERS_PARALLELISM": "true"}  # if unset, tokenizers turns parallelism off in a forked process
NO_ANALYTICS = {"GX_ANALYTICS_ENABLED": "false"}  # Great Expectations reads it when first imported


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets these environment variables within the block and restores the previous values afterwards."""
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
