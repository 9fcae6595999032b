"""Pages of docs/ with tables that a script writes between two markers."""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill_page(page: str, script: str, tables: Mapping[str, str]) -> str:
    """The page with its tables replaced by those that the script wrote, by name."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: written by {script} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        block = f"{begin}\n{table}\n{end}"
        page, count = pattern.subn(lambda _, block=block: block, page)
        if count != 1:
            raise ValueError(f"the page has {count} places for {name}")
    return page
