"""Rows that a model refuses, told apart from the others that were asked with them."""

from __future__ import annotations

import pandas as pd
import pytest

from hone.batch.answers import answer_rows
from hone.errors import ModelError

asked: list[int] = []


def ask(frame: pd.DataFrame) -> pd.DataFrame:
    """A model that takes no text with a brace."""
    asked.append(len(frame))
    if frame["text"].str.contains("{", regex=False).any():
        raise ValueError("not JSON:\n at 1")
    return pd.DataFrame({"label": frame["text"].str.upper(), "score": 1.0})


def test_each_refused_row_has_its_reason_and_the_others_their_answers() -> None:
    asked.clear()
    told = answer_rows(ask, (ValueError,), pd.DataFrame({"text": ["a", "{", "c", "d", "e", "f{", "g", "h"]}))
    assert [each if isinstance(each, str) else each["label"] for each in told] == [
        *("A", "not JSON: at 1", "C", "D", "E", "not JSON: at 1", "G", "H")
    ]
    # Found by halves.
    assert asked == [8, 4, 2, 1, 1, 2, 4, 2, 1, 1, 2]


def test_another_fault_is_not_taken_for_a_refusal() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        answer_rows(ask, (KeyError,), pd.DataFrame({"text": ["{"]}))


def test_an_answer_too_few_is_never_taken() -> None:
    with pytest.raises(ModelError, match="1 answers to 2 rows"):
        answer_rows(lambda frame: frame[:1], (ValueError,), pd.DataFrame({"text": ["a", "b"]}))
