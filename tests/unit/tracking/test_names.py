"""Names that are checked before anything runs: Hone refuses what MLflow refuses."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    _validate_logged_model_name,
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)

from hone.tracking.names import find_alias_fault, find_model_fault

MODELS = ["a/b", "a:b", ".", "..", "50%", "a'b", 'a"b', "", " ", "tickets", "Ticket_2 de-DE", "Bücher", "テスト", "a|b"]
ALIASES = ["latest", "v1", "v12", "v", "version", "candidate", "from-v2", "nightly_1"]


def accepts(*checks: object, name: str) -> bool:
    """Whether MLflow's own checks let the name through."""
    try:
        for check in checks:
            check(name)  # type: ignore[operator]
    except MlflowException:
        return False
    return True


@pytest.mark.parametrize("name", MODELS)
def test_a_model_name_is_refused_if_mlflow_refuses_it(name: str) -> None:
    assert (find_model_fault(name) == "") == accepts(_validate_model_name, _validate_logged_model_name, name=name)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_refused_if_mlflow_refuses_it(alias: str) -> None:
    accepted = accepts(_validate_model_alias_name, _validate_model_alias_name_reserved, name=alias)
    assert (find_alias_fault(alias) == "") == accepted


@pytest.mark.parametrize("alias", ["champion", "previous"])
def test_only_a_promotion_moves_the_champion(alias: str) -> None:
    assert find_alias_fault(alias) == "is moved by a promotion only"
