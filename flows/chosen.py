"""A configuration as a person gives it: the form's, or the name of a file in conf/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.config import RunConfig, load


def chosen(config: RunConfig | str) -> RunConfig:
    """The configuration itself, or that in conf/NAME.yaml of the working directory, or in the YAML file so named."""
    if isinstance(config, RunConfig):
        return config
    return load(Path(config) if config.endswith((".yaml", ".yml")) else Path("conf") / f"{config}.yaml")


def name_of(config: Any) -> str:
    """How a run names it, before it is read: RunConfig, its tree of plain values, or a file's name."""
    if isinstance(config, RunConfig):
        return config.name
    return str(config["name"]) if isinstance(config, Mapping) else Path(str(config)).stem
