"""Does a version answer as it will be asked: loaded by MLflow, in a process that knows nothing of Hone?"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hone.errors import ModelError

SECONDS = 600
TOLERANCE = 1e-3  # of a score: batches of other lengths, and other devices, differ by up to 1e-5
MARK = "answers: "
_CHILD = """
import json, sys
sys.modules["hone"] = None
import mlflow
uri, name = json.loads(sys.argv[1])
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(name)
asked = model.input_example
told = {"asked": asked.to_dict("records"), "answers": model.predict(asked).to_dict("records")}
print(%r + json.dumps(told, default=lambda value: value.item() if hasattr(value, "item") else list(value)))
"""


def answers(tracking_uri: str, uri: str) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The input example of the model `models:/NAME/V` or `models:/NAME@ALIAS`, and what it is answered with.

    Raises ModelError where the model cannot be loaded or does not answer within ten minutes.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", _CHILD % MARK, json.dumps([tracking_uri, uri])]
    with tempfile.TemporaryDirectory() as elsewhere:
        try:
            done = subprocess.run(
                command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise _refused(uri, f"no answer within {SECONDS} seconds") from None
    told = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not told:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise _refused(uri, "; ".join(last) or f"its process ended with {done.returncode}")
    found = json.loads(told[-1].removeprefix(MARK))
    return found["asked"], found["answers"]


def check(
    tracking_uri: str, uri: str, expected: Callable[[Sequence[dict[str, str]]], Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """What the served model answers, which is what `expected` says of its input example; else raises ModelError."""
    asked, found = answers(tracking_uri, uri)
    for row, told, wanted in zip(asked, found, expected(asked), strict=True):
        for name, value in told.items():
            if not same(value, wanted[name]):
                raise _refused(
                    uri,
                    f"served it answers {str(row)[:200]} with {name} {str(value)[:100]}; the weights that were"
                    f" judged say {str(wanted[name])[:100]}",
                )
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same, numbers to 1e-3."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _refused(uri: str, why: str) -> ModelError:
    return ModelError(
        f"failed the serving test: {why}",
        where=uri,
        fix="Load it as a server would, mlflow.pyfunc.load_model, and mend what it says; then register it again.",
    )
