"""What `hone predict` prints at its end."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Failed
from rich.console import Console

from hone.batch.request import Batch, Request
from hone.environment import Home
from hone.errors import DataError
from hone.progress import emit, listening
from hone_app.cli import batch as command
from hone_app.cli.batch import describe_output
from tests.terminal import render

ACCOUNT = {
    "rows": 3080,
    "unanswered": 2,
    "version": "models:/demo/3",
    "seconds": 11.0,
    "rows_per_second": 280.0,
    "finished": "2026-11-28T10:20:30+00:00",
}
REQUEST = Request(model="demo", source={"kind": "files", "paths": ["rows.csv"]}, output="out.csv")


def test_a_repeat_that_found_its_output_says_so() -> None:
    first, repeat = (describe_output(REQUEST, ACCOUNT, cached) for cached in (False, True))
    assert first == {
        "predicted": "3,080 rows by models:/demo/3, 2 of them without a prediction",
        "time": "11.0 s, 280.0 rows/s",
        "output": "out.csv",
    }
    assert repeat["cached"] == "up to date since 2026-11-28 10:20:30 UTC: rows, model and options have not changed"
    assert "time" not in repeat


@pytest.mark.parametrize("account", [ACCOUNT, {}])
def test_the_steps_of_a_repeat_are_shown_as_up_to_date(
    account: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import batch_predict

    batch = Batch(REQUEST, "demo", "3", "proof", ("text",), {"label": "string"}, "digest")
    monkeypatch.setattr("hone.batch.output.find_finished", lambda *_: account)
    events: list[tuple[str, str]] = []
    with listening(lambda step, event, _: events.append((step, event))):
        assert batch_predict.find_finished.fn(batch) == account
    assert events == ([(step, "hit") for step in ("read", "predict", "write")] if account else [])


def test_the_step_that_failed_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_flow(*_: Any, **__: Any) -> Any:
        emit("read", "started", [])
        return Failed(data=DataError("there is no column 'text'", fix="Name it."))

    monkeypatch.setattr(command, "run_flow", run_flow)
    monkeypatch.setattr(command, "orchestrated", nullcontext)
    output = io.StringIO()
    with pytest.raises(DataError, match="no column"):
        command._run(REQUEST, Home(tmp_path), Console(file=output, force_terminal=True, width=80))
    [line] = [line for line in render(output.getvalue()).splitlines() if "read" in line]
    assert line.startswith("✗ read") and "failed after" in line
