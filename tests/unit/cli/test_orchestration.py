"""A flow in a command's process, whose Prefect server stops answering: one error, the right one, and no long end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed, Failed

from hone.environment import Home
from hone.errors import HoneError, ServiceError, ValidationFailed
from hone_app.cli import orchestration
from hone_app.cli.orchestration import end_at_once, run_flow

REQUEST = httpx.Request("POST", "http://127.0.0.1:4200/api/flows/")


def refuse() -> None:
    raise httpx.ConnectError("Connection refused")


def fail() -> None:
    raise PrefectHTTPStatusError("500", request=REQUEST, response=httpx.Response(500, request=REQUEST))


def stop_and_refuse() -> None:
    """A task's error, which the server cannot be informed of."""
    try:
        raise ValidationFailed("a column is empty")
    except ValidationFailed:
        refuse()


def interrupt_and_refuse() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        refuse()


def fail_by_name() -> None:
    """An error whose message has the words of an interruption."""
    raise ValidationFailed("a value of the column text: KeyboardInterrupt: is refused")


@pytest.mark.parametrize(
    ("flow", "kind", "message"),
    [
        (fail_by_name, ValidationFailed, "a value of the column text"),
        (refuse, ServiceError, r"did not answer \(Connection refused\)"),
        (fail, ServiceError, "answered 500"),
        (stop_and_refuse, ValidationFailed, "a column is empty"),
        (interrupt_and_refuse, KeyboardInterrupt, "^$"),
    ],
)
def test_what_a_person_reads_when_the_server_is_gone(
    flow: Callable[[], None],
    kind: type[HoneError],
    message: str,
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port}/api")
    monkeypatch.setattr(orchestration, "_unsent", [])
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    end_at_once(3)
    with pytest.raises(kind, match=message):
        run_flow(Home(tmp_path), stand_in(flow))
    assert ended == []
    end_at_once(8)
    assert ended == [8]
    assert not list((tmp_path / "runs").iterdir())


def stand_in(function: Callable[..., Any], then: Callable[[], None] = lambda: None) -> Any:
    """What is called as a flow of Prefect, which reports its end by `then`."""

    class Flow:
        fn = staticmethod(function)

        def with_options(self, **_: Any) -> Flow:
            return self

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            state = self.fn(*arguments)
            then()
            return state if options.get("return_state") else state.result()

    return Flow()


@pytest.mark.parametrize("options", [{}, {"return_state": True}])
@pytest.mark.parametrize("report", [refuse, fail])
def test_a_flow_that_is_done_before_the_server_is_gone_gives_its_result_and_a_warning(
    report: Callable[[], None],
    options: dict[str, bool],
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port}/api")
    monkeypatch.setattr(orchestration, "_unsent", [])
    state = Completed(data="rows")
    result = run_flow(Home(tmp_path), stand_in(lambda: state, then=report), **options)
    assert result == (state if options else "rows")
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith(
        "hone: warning: the work is done, but Prefect's page of this run is incomplete: Prefect's"
    )


def test_a_flow_that_has_failed_raises_its_error_though_the_server_is_gone(
    free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port}/api")
    monkeypatch.setattr(orchestration, "_unsent", [])
    stopped = Failed(data=ValidationFailed("a column is empty"))
    with pytest.raises(ValidationFailed, match="a column is empty"):
        run_flow(Home(tmp_path), stand_in(lambda: stopped, then=refuse))
    assert capsys.readouterr().err == ""
