"""A fixed part of `python -m tests.fuzzing`: what is damaged at random is read right, or refused with advice."""

from __future__ import annotations

from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.pyfunc import scoring_server

from hone.errors import ConfigError, DataError
from hone.tracking.reader import get_version, version_directory
from tests.fuzzing import Result, run_cases
from tests.fuzzing.targets import CHECKS, Requests
from tests.tiny_versions import MODEL, Versions

SEED = 2026
CASES = {"readers": 800, "rows": 300, "configurations": 300, "store": 300, "records": 300, "training": 300}


def check(result: Result) -> None:
    assert not result.wrong, "\n\n".join(f"{name}\n{text}" for name, text in result.wrong.items())
    assert len(result.outcomes) > 1, result.outcomes


@pytest.mark.parametrize("target", CHECKS)
def test_what_is_damaged_at_random_is_read_right_or_refused(target: str, tmp_path: Path) -> None:
    check(run_cases(target, CHECKS[target], SEED, range(CASES[target]), tmp_path))


def test_a_served_model_answers_or_refuses(versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_MLFLOW_IS_IN_SERVING_ENVIRONMENT.name, "true")  # which `init` sets for the whole process
    version = get_version(versions.uri, f"models:/{MODEL}/2")
    app = scoring_server.init(mlflow.pyfunc.load_model(str(version_directory(versions.uri, version, tmp_path))))
    check(run_cases("requests", Requests(app), SEED, range(200), tmp_path))


def test_a_traceback_and_an_error_without_advice_are_wrong(tmp_path: Path) -> None:
    def fail(draw: object, place: Path) -> str:
        raise (KeyError("x"), ConfigError("bad"), DataError("bad", fix="Fix it."))[int(place.name)]

    result = run_cases("any", fail, SEED, range(3), tmp_path)
    assert set(result.wrong) == {f"any:{SEED}:0", f"any:{SEED}:1"}
    assert result.outcomes == {"wrong": 2, "an error (DataError)": 1}
