"""Names of registered models and their aliases: what MLflow accepts, and what promotion has reserved."""

from __future__ import annotations

import re

from hone.tracking.aliases import CHAMPION, PREVIOUS

# The registry refuses / and :, logged models also . % " and ', and filters cannot quote control characters.
_BAD = re.compile(r"[/:.%\"'\x00-\x1f\x7f]")
_LENGTH = 256  # of the column in MLflow's database


def find_model_fault(name: str) -> str:
    """Why MLflow accepts no registered model of this name; '' if it does."""
    if bad := dict.fromkeys(_BAD.findall(name)):
        return f"MLflow accepts no model name with {' '.join(map(repr, bad))}"
    if not name.strip():
        return "MLflow accepts no empty model name"
    return f"MLflow accepts model names of at most {_LENGTH} characters" if len(name) > _LENGTH else ""


def find_alias_fault(alias: str) -> str:
    """Why a new version cannot have this alias; '' if it can."""
    if alias == "latest" or re.fullmatch(r"v\d+", alias):
        return "is an alias reserved by MLflow"
    return "is moved by a promotion only" if alias in (CHAMPION, PREVIOUS) else ""
