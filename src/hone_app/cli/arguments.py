"""The arguments that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hone.config.folder import find_config as find_by_name

CONFIG: dict[str, Any] = {"metavar": "CONF", "help": "configuration file, or the name of one in conf/: demo"}


def add_config(sub: argparse.ArgumentParser) -> None:
    """Add CONF and its overrides to the parser of a command."""
    sub.add_argument("config", type=find_config, **CONFIG)
    # With a default it is not named as a required argument when CONF is missing.
    sub.add_argument("overrides", nargs="*", default=[], metavar="section.field=value", help="override of a field")


def find_config(name: str) -> Path:
    """The file at this path, else the one in conf/ with this name."""
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return Path(name)
    return find_by_name(name)
