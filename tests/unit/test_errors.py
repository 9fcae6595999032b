"""Errors say what, where and what to do, and survive a trip between processes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from hone import errors
from hone.errors import DataError, HoneError, ServiceError

ROOT = Path(__file__).parents[2]


def tree() -> list[type[HoneError]]:
    found, waiting = [], [HoneError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == "hone.errors"]


def test_a_message_has_its_place_before_and_its_remedy_below() -> None:
    assert str(DataError("holds no rows", where="a.csv", fix="Mend it.")) == "a.csv: holds no rows\n  Mend it."
    assert str(DataError("holds no rows")) == "holds no rows"


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[HoneError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what", where="where", fix="fix")))
    assert type(again) is kind
    assert str(again) == str(kind("what", where="where", fix="fix"))


def test_only_what_a_server_did_is_tried_again() -> None:
    assert [kind.__name__ for kind in tree() if kind.retryable] == [ServiceError.__name__]


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_page_of_the_documentation(kind: type[HoneError]) -> None:
    assert (ROOT / kind.page).is_file()


def test_of_a_very_long_line_the_beginning_and_the_end_are_shown() -> None:
    message = str(errors.ConfigError("is not\na number", where="x" * 70_000, fix="Write a number."))
    assert len(message) < 1_200
    assert message.startswith("xxx") and "69,008 characters left out" in message
    assert message.endswith(": is not\na number\n  Write a number.")


def test_the_docstring_draws_the_tree_with_its_exit_codes() -> None:
    drawn = dict(re.findall(r"(\w+)\s+exit (\d)", errors.__doc__ or ""))
    assert drawn["HoneError"] == "1"
    for kind in tree():
        assert kind.__name__ in (errors.__doc__ or "")
        if kind.__name__ in drawn:
            assert int(drawn[kind.__name__]) == kind.exit_code
