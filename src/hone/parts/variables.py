"""Environment variables in options: `${VAR}` and `${VAR:-default}`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hone.errors import DataError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def expand(text: str) -> str:
    """Replace `${VAR}`, `${VAR:-default}` and a leading `~` in `text`; raises DataError if a variable is unset."""

    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        replacement = os.environ.get(name) or default
        if replacement is None:
            raise DataError(
                f"the environment variable {name} is not set",
                where=text,
                fix=f"Set it: export {name}=... or write ${{{name}:-a default}} in the config.",
            )
        return replacement

    return str(Path(expanded).expanduser()) if (expanded := _VARIABLE.sub(value_of, text))[:1] == "~" else expanded
