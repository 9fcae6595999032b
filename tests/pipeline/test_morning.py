"""docs/morning.md: the commands of a first morning, and what the terminal shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import morning_page
from tests.terminal import COLUMNS

PAGE = morning_page.PAGE.read_text("utf8")
# What differs from one morning to the next: keys, figures, dates.
KEY, NUMBER = re.compile(r"\b[0-9a-f]{20,}\b"), re.compile(r"(?:[+<–-] ?)?\d[\d.,:-]*")


def describe(page: str) -> list[str]:
    """The page's lines without what differs; columns move with the width of the figures."""
    return [" ".join(NUMBER.sub("#", KEY.sub("#", line)).split()) for line in page.splitlines()]


def test_no_line_is_wider_than_the_terminal() -> None:
    blocks = morning_page.list_blocks(PAGE)
    assert all(block.startswith(("$ hone ", "$ head ")) for block in blocks)
    assert [line for block in blocks for line in block.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_commands_print_what_the_page_shows(shared: Path) -> None:
    with morning_page.make_home() as home:
        assert describe(morning_page.type_morning(PAGE, home, shared)) == describe(PAGE)
