"""Environment variables that a library reads, set for as long as it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ALL_CORES = {"TOKENIZERS_PARALLELISM": "true"}  # unset, it is switched off in a process that was forked
NO_ANALYTICS = {"GX_ANALYTICS_ENABLED": "false"}  # read when Great Expectations is first imported


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Within the block the process has these environment variables; after it those it had before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
