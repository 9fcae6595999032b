"""Environment variables in options: `${VAR}` and `${VAR:-default}`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.errors import DataError, HoneError

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


def hide_values(text: str, template: str) -> str:
    """`text` with the names of the variables in `template` in place of their values, which may be secret.

    Values of one to three characters stay: they are no secrets, and are in other words too.
    """
    for name, _ in _VARIABLE.findall(template):
        value = os.environ.get(name, "")
        if len(value) > 3:
            text = text.replace(value, f"${{{name}}}")
    return text


@contextmanager
def hiding_values(template: str) -> Iterator[None]:
    """Within the block, errors show the names of the variables in `template`, as `hide_values` does."""
    try:
        yield
    except HoneError as fault:
        fault.what, fault.where, fault.fix = (
            hide_values(text, template) for text in (fault.what, fault.where, fault.fix)
        )
        raise
