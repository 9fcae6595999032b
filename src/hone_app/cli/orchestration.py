"""The Prefect server for a flow that a command runs in this process: the configured one, or Hone's own."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from types import FrameType, UnionType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hone.environment import Home
from hone.errors import HoneError, ServiceError
from hone.tracking.client import check_tracking_uri
from hone_app import terminal_runs
from hone_app.service import servers
from hone_app.service.up import check_stores

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

# Prefect's client tries a request again after 2, 4 and 8 s (its default: until 62 s), and waits 20 s for an answer
# (60 s). A run needs two requests to end when the server is gone.
CLIENT = {"PREFECT_CLIENT_MAX_RETRIES": "3", "PREFECT_API_REQUEST_TIMEOUT": "20"}
REACH_SECONDS = 10.0
INTERRUPTS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_unsent: list[str] = []  # the servers that no longer answered when a flow had ended


@contextmanager
def orchestrated(data: Home) -> Iterator[Callable[[], bool]]:
    """Import flows within the block and run them after it (`run_flow`); meanwhile the server may be starting.

    Yields a function that returns whether it is still starting. Prefect reads its settings when it is imported, which
    takes about as long as the server's start. Prefect's logs go to its UI only, not to the terminal. Raises
    ServiceError if a server does not answer.
    """
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_LOGGING_INTERNAL_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] = "hone"
    os.environ.update({name: value for name, value in CLIENT.items() if name not in os.environ})
    logging.raiseExceptions = False  # no traceback for a line that a log did not take
    _interrupt_on_signals()
    check_stores(data)
    check_tracking_uri(data.tracking_uri)
    url = servers.find_configured_prefect()
    if url:
        os.environ["PREFECT_API_URL"] = url
        if not _is_reachable(url):
            fix = "Start it, or unset PREFECT_API_URL: the command then starts a server of its own."
            raise ServiceError("Prefect's server did not answer", where=url, fix=fix)
        yield lambda: False
        return
    server = servers.prefect_server(data)
    os.environ["PREFECT_HOME"] = str(data.prefect)
    with servers.starting(server) as server_url:
        os.environ["PREFECT_API_URL"] = f"{server_url}/api"
        yield lambda: not servers.is_healthy(server_url, server.health)


def run_flow(data: Home, flow: Flow[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run a flow in this process; its function returns a state. Returns this state if `return_state`, else its result.

    If Prefect's server stops answering after the function has returned, a warning is printed: the work is complete.
    Raises ServiceError if it stops answering before, KeyboardInterrupt after an interruption, also where Prefect raises
    an error of its own while it handles one (3.8.8: before it has made a task's run), or what a task raised.
    """
    states: list[State[Any]] = []
    try:
        return _call_flow(data, _add_state(flow, states), *arguments, **options)
    except ServiceError as fault:
        if not states:
            raise
        if states[0].is_completed():
            warning = f"hone: warning: the work is done, but Prefect's page of this run is incomplete: {fault.what}"
            print(warning, file=sys.stderr)  # noqa: T201
        return states[0] if options.get("return_state") else states[0].result()


def _add_state(flow: Flow[..., Any], states: list[State[Any]]) -> Flow[..., Any]:
    """The flow; it also appends the state that its function returns to `states`, where Prefect does not return it.

    Prefect raises an error instead if it cannot report the state to its server.
    """
    function = flow.fn

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> State[Any]:
        state: State[Any] = function(*arguments, **options)
        states.append(state)
        return state

    # With its types, not their names: Prefect would look these up in this module.
    vars(call)["__signature__"] = inspect.signature(function, eval_str=True)
    recording = flow.with_options()
    recording.fn = call
    return recording


def _call_flow(data: Home, flow: Flow[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a flow, and record the call among those of terminals. Raises as `run_flow`, at every time."""
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    api = os.environ["PREFECT_API_URL"]
    _mark_crashed(data)
    with terminal_runs.record_run(data, " ".join(["hone", *sys.argv[1:]]), api) as add_flow_run:
        flow_runs: list[UUID] = []

        def record(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
            flow_runs.append(flow_run.id)
            add_flow_run(flow_run.id)

        try:
            return flow.with_options(on_running=[record])(*arguments, **options)
        except PrefectHTTPStatusError as fault:
            error = _build_error(data, api, f"answered {fault.response.status_code}")
            raise _find_context(fault, HoneError | KeyboardInterrupt) or error from fault
        except httpx.HTTPError as fault:
            if _is_reachable(api):
                raise  # of another server, such as that of a base model
            error = _build_error(data, api, f"did not answer ({fault})")
            raise _find_context(fault, HoneError | KeyboardInterrupt) or error from fault
        except Exception as fault:
            if not _is_interruption(fault):
                raise
            _mark_interrupted(flow_runs)
            raise KeyboardInterrupt from fault
        finally:
            if not _is_reachable(api):
                _unsent.append(api)


def _build_error(data: Home, api: str, what: str) -> ServiceError:
    return ServiceError(
        f"Prefect's server {what}",
        where=api,
        fix=f"Finished stages are kept: start the server or see its log (in {data.servers} or {data.logs}; is the disk "
        "full?), and run the same command again to continue.",
    )


def end_at_once(status: int) -> None:
    """End this process now if Prefect's server is gone.

    Otherwise, at the interpreter's end, Prefect would try for minutes to send each log and event that is left.
    """
    if _unsent:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _mark_interrupted(flow_runs: Sequence[UUID]) -> None:
    """Mark flow runs that Prefect marked as failed as crashed, as it does after other interruptions."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        for flow_run in flow_runs:
            client.set_flow_run_state(flow_run, Crashed(message="Execution was interrupted."), force=True)


def _mark_crashed(data: Home) -> None:
    """Mark flow runs of killed commands; a server that does not answer is reported by the flow."""
    if not terminal_runs.has_dead(data):
        return
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            terminal_runs.mark_crashed(data, client)
    except httpx.HTTPError:
        return


def _is_interruption(fault: BaseException) -> bool:
    """Whether an interruption was being handled when `fault` arose, or made pydantic's serializer fail.

    The serializer names what a function raised in its message, and keeps neither cause nor context (2.14).
    """
    from prefect.exceptions import TerminationSignal
    from pydantic_core import PydanticSerializationError

    if _find_context(fault, KeyboardInterrupt | TerminationSignal):
        return True
    serialization = _find_context(fault, PydanticSerializationError)
    return any(f": {kind.__name__}" in str(serialization) for kind in (KeyboardInterrupt, TerminationSignal))


def _find_context(fault: BaseException, kind: type[BaseException] | UnionType) -> BaseException | None:
    """`fault` if it is of `kind`, else the latest such exception that was being handled when it arose."""
    context: BaseException | None = fault
    while context is not None and not isinstance(context, kind):
        context = context.__context__
    return context


def _is_reachable(api: str) -> bool:
    """Whether a server answers at `api` within REACH_SECONDS, with whatever status."""
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=REACH_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False


def _interrupt_on_signals() -> None:
    """Let INTERRUPTS end a command as Ctrl-C does; one that is ignored (`nohup`) stays so."""
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for descriptor in terminals:
            if not os.isatty(descriptor):  # the terminal is gone: writing to it is an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        signal.default_int_handler(number, frame)

    for number in INTERRUPTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
