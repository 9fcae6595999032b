"""Environment variables in options: `${VAR}` and `${VAR:-default}`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hone.errors import DataError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def expand(text: str) -> str:
    """`text` with `${VAR}`, `${VAR:-default}` and a leading `~` replaced; raises DataError at an unset one."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            raise DataError(
                f"the environment variable {name} is not set",
                where=text,
                fix=f"Set it: export {name}=... or write ${{{name}:-a default}} in the config.",
            )
        return found

    return str(Path(expanded).expanduser()) if (expanded := _VARIABLE.sub(value, text))[:1] == "~" else expanded
