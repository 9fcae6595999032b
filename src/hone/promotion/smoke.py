"""The serving test: does a version, loaded by MLflow in a process without Hone, give the expected answers?"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hone.errors import ModelError

SECONDS = 600  # for loading a model and its answers
TOLERANCE = 1e-3  # of scores: other batch lengths and other devices make a difference of up to 1e-5
MARK = "answers: "  # precedes the child's answers, to tell them from what libraries print
_CHILD = """
import json, sys
sys.modules["hone"] = None
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
for line in sys.stdin:
    # suppress_warnings: to warn of missing requirements MLflow reads the file lists of all packages, 0.7 s.
    model = mlflow.pyfunc.load_model(line.strip(), suppress_warnings=True)
    example = model.input_example
    result = {"rows": example.to_dict("records"), "answers": model.predict(example).to_dict("records")}
    to_json = lambda value: value.item() if hasattr(value, "item") else list(value)
    print(sys.argv[2] + json.dumps(result, default=to_json))
    sys.stdout.flush()
"""

Answers = Sequence[Mapping[str, Any]]


class Server:
    """A process that loads models as MLflow's own server does, and predicts with their input examples.

    One process serves both tests of a move: its imports take 10 s of processor time, a load 1 s, and a champion that
    does not answer is to be put back soon.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def predict_example(self, uri: str) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
        """The rows of the input example of the model `models:/NAME/V` or `models:/NAME@ALIAS`, and its answers to them.

        Raises ModelError if the model cannot be loaded or does not answer within ten minutes.
        """
        deadline = threading.Timer(SECONDS, self._process.kill)
        deadline.start()
        try:
            line = self._request(uri)
        finally:
            deadline.cancel()
        if not line:
            self._errors.seek(0)
            last_errors = [error.strip() for error in self._errors.read().splitlines() if error.strip()][-3:]
            raise _build_error(uri, "; ".join(last_errors) or f"no answer within {SECONDS} seconds")
        result = json.loads(line.removeprefix(MARK))
        return result["rows"], result["answers"]

    def check_answers(self, uri: str, expected: Callable[[Sequence[dict[str, str]]], Answers]) -> list[dict[str, Any]]:
        """The served model's answers to its input example; raises ModelError if they are not those of `expected`."""
        rows, answers = self.predict_example(uri)
        for row, answer, expected_answer in zip(rows, answers, expected(rows), strict=True):
            for name, value in answer.items():
                if not is_same_value(value, expected_answer[name]):
                    raise _build_error(
                        uri,
                        f"served it answers {str(row)[:200]} with {name} {str(value)[:100]}; the weights that were"
                        f" judged say {str(expected_answer[name])[:100]}",
                    )
        return answers

    def _request(self, uri: str) -> str:
        """The process's line with the answers; '' if it ends without one."""
        process = self._process
        try:
            assert process.stdin and process.stdout
            os.write(process.stdin.fileno(), f"{uri}\n".encode())
        except BrokenPipeError:  # it has ended: its standard error shows why
            return ""
        return next((line for line in process.stdout if line.startswith(MARK)), "")


@contextmanager
def start_server(tracking_uri: str) -> Iterator[Server]:
    """Within the block, a serving process without Hone, in an empty working directory."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", _CHILD, tracking_uri, MARK]
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            try:
                yield Server(process, errors)
            finally:
                process.kill()


def is_same_value(served: Any, expected: Any) -> bool:
    """Whether two values of answers are the same, numbers to 1e-3 (absolute or relative)."""
    if isinstance(served, str) or isinstance(expected, str):
        return bool(served == expected)
    if isinstance(served, list | tuple) and isinstance(expected, list | tuple):
        return len(served) == len(expected) and all(map(is_same_value, served, expected))
    if isinstance(served, Mapping) and isinstance(expected, Mapping):
        return served.keys() == expected.keys() and all(is_same_value(served[key], expected[key]) for key in served)
    if served is None or expected is None:
        return served is expected
    return math.isclose(served, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _build_error(uri: str, why: str) -> ModelError:
    return ModelError(
        f"failed the serving test: {why}",
        where=uri,
        fix="Load it as a server would (mlflow.pyfunc.load_model), fix the error, and register it again.",
    )
