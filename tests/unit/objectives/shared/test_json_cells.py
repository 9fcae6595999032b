"""Cells with JSON that is nested more deeply than it can be read: text where text is allowed, else one refused row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hone.objectives import OBJECTIVES
from hone.objectives.preference.rows import parse_text
from hone.objectives.seq2seq import parse_references
from hone.objectives.shared.json_cells import load_json

DEEP = "[" * 200_000


def test_it_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        load_json(DEEP)


@pytest.mark.parametrize("parse", [parse_text, parse_references])
def test_a_text_may_begin_with_any_number_of_brackets(parse: Callable[[str], Any]) -> None:
    assert parse(DEEP) in (DEEP, [DEEP])


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("token-classification", {"tokens": DEEP, "tags": DEEP}),
        ("question-answering", {"question": "a", "context": "b", "answers": DEEP}),
        ("multi-label-classification", {"text": "a", "labels": DEEP}),
        ("chat", {"messages": DEEP}),
        ("chat", {"messages": DEEP.replace("[", '[{"a":')}),
        ("embedding", {"anchor": "a", "positive": "b", "negatives": DEEP}),
        ("preference", {"prompt": "a", "chosen": DEEP, "rejected": "c"}),
    ],
)
def test_a_row_is_read_or_refused(kind: str, row: dict[str, Any]) -> None:
    objective = OBJECTIVES[kind]()
    try:
        objective.normalize_row(row)
    except ValueError as fault:
        assert len(str(fault)) < 500
