"""Lexicons in files: those that are shipped, in `lexicons/`, and a user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hone.errors import ConfigError
from hone.evaluation.judging.lexicon import Lexicon
from hone.parts.strict_yaml import load_yaml

SHIPPED = Path(__file__).parent / "lexicons"
_FIX = "Name a shipped lexicon, or a YAML file with pairs: [[he, she], [father, mother]]."


def find_lexicon(name: str) -> Path:
    """The file of a shipped lexicon (`gender-en`), or the file that is named.

    Raises ConfigError if there is neither.
    """
    shipped, file = SHIPPED / f"{name}.yaml", Path(name)
    if shipped.is_file() and file.name == name:
        return shipped
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
        raise ConfigError(
            f"is neither a file nor a shipped lexicon ({names})", where=f"evaluation.flips {name}", fix=_FIX
        )
    return file


def load_lexicon(name: str) -> Lexicon:
    """The lexicon of this name or in this file; raises ConfigError for one that does not exist or is not one."""
    path, where = find_lexicon(name), f"evaluation.flips {name}"
    try:
        content = load_yaml(path.read_text("utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise ConfigError(f"cannot be read: {fault}", where=where, fix=_FIX) from None
    pairs = content.get("pairs") if isinstance(content, Mapping) else None
    if not isinstance(pairs, list) or not pairs:
        raise ConfigError("has no pairs", where=where, fix=_FIX)
    limits = content.get("limits") or []
    return Lexicon(
        path.stem,
        [_read_pair(pair, where) for pair in pairs],
        " ".join(str(content.get("source") or "").split()),
        tuple(" ".join(str(limit).split()) for limit in (limits if isinstance(limits, list) else [limits])),
    )


def _read_pair(pair: Any, where: str) -> tuple[str, str]:
    """A pair of two different words; raises ConfigError for anything else."""
    words = pair if isinstance(pair, list) else []
    whole = all(isinstance(word, str) and re.fullmatch(r"\w(?:\S*\w)?", word) for word in words)
    if len(words) != 2 or not whole or words[0].lower() == words[1].lower():
        raise ConfigError(
            f"{pair} is not a pair of two different words without spaces",
            where=where,
            fix="Write [he, she]; quote yes, no, on, off and numbers.",
        )
    return words[0], words[1]
