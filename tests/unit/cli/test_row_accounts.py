"""The accounts in docs/reading.md are those that `hone rows` computes from the real data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import fill_page
from tests.reading_page import PAGE
from tests.row_accounts import ACCOUNTS, ROOT, SCRIPT, Account, build_line, build_table

# A few of each kind: default steps, a shipped configuration, overrides, derived rows; refused, dropped and neither.
QUICK = {"presidio_pii", "plagiarism_near_dup, five planted pairs", "kto_en_demo", "snips, points that books are given"}


def test_every_shipped_configuration_has_a_line() -> None:
    shipped = {path.stem for path in (ROOT / "conf").glob("*.yaml")}
    assert {account.conf for account in ACCOUNTS if isinstance(account.conf, str)} == shipped


@pytest.mark.parametrize(
    "account", [account for account in ACCOUNTS if account.name in QUICK], ids=lambda account: account.name
)
def test_a_line_is_what_the_rows_give(account: Account, shared: Path, tmp_path: Path) -> None:
    line = build_line(account, shared / "datasets", tmp_path)
    assert line in PAGE.read_text("utf8").splitlines(), f"run: python {SCRIPT}"


@pytest.mark.long
def test_the_table_is_what_the_rows_give(shared: Path) -> None:
    """Every line; the shorter counterpart is above."""
    page = PAGE.read_text("utf8")
    assert fill_page(page, SCRIPT, {"accounts": build_table(shared / "datasets")}) == page, f"run: python {SCRIPT}"
