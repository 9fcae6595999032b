"""The table of docs/training.md: each built-in method with its summary, its options and what is registered of it.

    python tests/methods_page.py      writes it into the page

tests/unit/methods/test_methods_page.py compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from hone.methods import METHODS
from tests.pages import fill_page

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
SCRIPT = "tests/methods_page.py"


def build_tables(methods: Mapping[str, type[Any]]) -> dict[str, str]:
    """The table's Markdown, by its name."""
    lines = ["| method | summary | options | registered |", "| --- | --- | --- | --- |"]
    for kind, method in methods.items():
        summary = " ".join((method.__doc__ or "").partition("\n\n")[0].split()).partition(". ")[0].removesuffix(".")
        options = ", ".join(f"`{option.name}`" for option in fields(method))
        lines.append(f"| `{kind}` | {summary} | {options} | {_describe_product(method)} |")
    return {"methods": "\n".join(lines)}


def _describe_product(method: type[Any]) -> str:
    if not method.adapter:
        return "the model"
    if not method().can_merge:
        return "the adapter"
    choice = ", or the adapter with `merged: false`" if "merged" in {option.name for option in fields(method)} else ""
    return f"the merged model{choice}"


if __name__ == "__main__":
    PAGE.write_text(fill_page(PAGE.read_text("utf8"), SCRIPT, build_tables(METHODS.built_in)), "utf8")
