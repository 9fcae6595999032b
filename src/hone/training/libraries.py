"""Imports transformers, peft and pyarrow in the training process without their optional dependencies.

Each imports other packages if they are installed: scipy for the loss of object detection, bitsandbytes for adapters of
quantized models, pandas to distinguish its series from lists. Together they take a fifth of the process's start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from hone.methods import METHODS
from hone.objectives import OBJECTIVES

OPTIONAL = ("pandas", "scipy", "sklearn", "bitsandbytes")


def import_libraries(spec: Mapping[str, Any]) -> None:
    """Import the libraries of a training (`spec` from launch.py) as if optional packages were not installed.

    Only for Hone's own objectives and methods: others' parts and a model's own code may need the optional packages.
    """
    parts = OBJECTIVES[spec["objective"][0]], METHODS[spec["method"][0]]
    if spec.get("code") or not all(part.__module__.startswith("hone.") for part in parts):
        return
    needed = {library for part in parts for library in getattr(part, "libraries", ())}
    needed |= set(list_optimizer_libraries(spec["settings"]))
    with hide_packages(name for name in OPTIONAL if name not in needed):
        import pyarrow as pa
        import transformers.modeling_utils  # noqa: F401

        pa.array([])  # looks for pandas once, the first time
        if "peft" in needed:
            from peft.import_utils import is_bnb_4bit_available

            is_bnb_4bit_available()  # looks for bitsandbytes once, the first time


def list_optimizer_libraries(settings: Mapping[str, Any]) -> list[str]:
    """The distributions that the optimizer of a configuration's section `training` needs beside torch."""
    return ["bitsandbytes"] if settings.get("optimizer", "adamw") != "adamw" else []


@contextmanager
def hide_packages(names: Iterable[str]) -> Iterator[None]:
    """Within the block these packages cannot be found by an import; a package imported before is not affected."""

    class Finder(PathFinder):
        hidden = frozenset(names)

        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            return None if fullname in cls.hidden else super().find_spec(fullname, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
    try:
        yield
    finally:
        sys.meta_path[sys.meta_path.index(Finder)] = PathFinder
