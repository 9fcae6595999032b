"""Does a version answer as it will be asked: loaded by MLflow, in a process that knows nothing of Hone?"""

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

SECONDS = 600
TOLERANCE = 1e-3  # of a score: batches of other lengths, and other devices, differ by up to 1e-5
MARK = "answers: "
_CHILD = """
import json, sys
sys.modules["hone"] = None
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
for line in sys.stdin:
    # To warn of requirements that are not installed it reads the file lists of all packages: 0.7 s.
    model = mlflow.pyfunc.load_model(line.strip(), suppress_warnings=True)
    asked = model.input_example
    told = {"asked": asked.to_dict("records"), "answers": model.predict(asked).to_dict("records")}
    print(sys.argv[2] + json.dumps(told, default=lambda value: value.item() if hasattr(value, "item") else list(value)))
    sys.stdout.flush()
"""

Answers = Sequence[Mapping[str, Any]]


class Server:
    """A process that loads models as MLflow's own server does, and asks each its input example.

    It serves both tests of a move: what takes its time are the imports (10 s of processor, a load 1 s), and a champion
    that does not answer is to be put back soon.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def answers(self, uri: str) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
        """The input example of the model `models:/NAME/V` or `models:/NAME@ALIAS`, and what it is answered with.

        Raises ModelError where the model cannot be loaded or does not answer within ten minutes.
        """
        late = threading.Timer(SECONDS, self._process.kill)
        late.start()
        try:
            told = self._ask(uri)
        finally:
            late.cancel()
        if not told:
            self._errors.seek(0)
            last = [line.strip() for line in self._errors.read().splitlines() if line.strip()][-3:]
            raise _refused(uri, "; ".join(last) or f"no answer within {SECONDS} seconds")
        found = json.loads(told.removeprefix(MARK))
        return found["asked"], found["answers"]

    def check(self, uri: str, expected: Callable[[Sequence[dict[str, str]]], Answers]) -> list[dict[str, Any]]:
        """What the served model answers, which is what `expected` says of its input example; else raises ModelError."""
        asked, found = self.answers(uri)
        for row, told, wanted in zip(asked, found, expected(asked), strict=True):
            for name, value in told.items():
                if not same(value, wanted[name]):
                    raise _refused(
                        uri,
                        f"served it answers {str(row)[:200]} with {name} {str(value)[:100]}; the weights that were"
                        f" judged say {str(wanted[name])[:100]}",
                    )
        return found

    def _ask(self, uri: str) -> str:
        """The line that answers; '' where the process ends without."""
        process = self._process
        try:
            assert process.stdin and process.stdout
            os.write(process.stdin.fileno(), f"{uri}\n".encode())
        except BrokenPipeError:  # it ended already: what it said tells why
            return ""
        return next((line for line in process.stdout if line.startswith(MARK)), "")


@contextmanager
def server(tracking_uri: str) -> Iterator[Server]:
    """Within the block a process that serves, without Hone and in a directory of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", _CHILD, tracking_uri, MARK]
    with tempfile.TemporaryDirectory() as elsewhere, (Path(elsewhere) / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=elsewhere,
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
        fix="Load it as a server would (mlflow.pyfunc.load_model), fix the error, and register it again.",
    )
