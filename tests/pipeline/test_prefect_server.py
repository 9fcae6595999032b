"""The Prefect server that Hone starts, on SQLite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from textwrap import dedent
from urllib.parse import urlsplit

import pytest

from tests.services import ask, status

pytestmark = pytest.mark.slow


def test_many_may_start_runs_at_once(prefect_url: str) -> None:
    flow = ask(f"{prefect_url}/flows/", {"name": "crowd"})
    deployment = ask(f"{prefect_url}/deployments/", {"name": "crowd", "flow_id": flow["id"]})
    start = f"{prefect_url}/deployments/{deployment['id']}/create_flow_run"
    with ThreadPoolExecutor(8) as people:
        answers = Counter(people.map(lambda _: status(start, body={}), range(80)))
    assert answers == {200: 80}
    found = ask(f"{prefect_url}/flow_runs/count", {"deployments": {"id": {"any_": [deployment["id"]]}}})
    assert found == 80


JSON = {"Content-Type": "application/json"}
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
HANDSHAKE |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "prefect"}


@pytest.mark.parametrize(
    ("host", "origin", "is_allowed"),
    [
        ("HERE", "", True),
        ("HERE", "http://HERE", True),
        ("localhost:PORT", "http://localhost:PORT", True),
        ("HERE", "http://evil.example", False),
        ("HERE", "http://127.0.0.1:1", False),
        ("HERE", "null", False),
        ("evil.example:PORT", "", False),
        ("evil.example:PORT", "http://evil.example:PORT", False),
    ],
)
def test_requests_and_websockets_of_other_pages_and_names_are_refused(
    prefect_url: str, host: str, origin: str, is_allowed: bool
) -> None:
    address = urlsplit(prefect_url)
    host, origin = (text.replace("HERE", address.netloc).replace("PORT", str(address.port)) for text in (host, origin))
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    name = f"by {host} of {origin}".replace("/", "")  # which no name may have
    answers = [
        answer_status(address.netloc, "GET", "/api/hello", headers),
        answer_status(address.netloc, "POST", "/api/flows/", headers | JSON, json.dumps({"name": name})),
        answer_status(address.netloc, "GET", "/api/events/in", headers | HANDSHAKE),
    ]
    assert answers == ([200, 201, 101] if is_allowed else [403, 403, 403])
    created = ask(f"{prefect_url}/flows/filter", {"flows": {"name": {"any_": [name]}}})
    assert len(created) == is_allowed


def answer_status(server: str, method: str, path: str, headers: dict[str, str], body: str | None = None) -> int:
    """The status with which the server answers exactly these headers."""
    with closing(HTTPConnection(server, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        return connection.getresponse().status


@pytest.mark.parametrize(
    "interruption",
    [
        "KeyboardInterrupt",
        "TerminationSignal(15)",
        "PydanticSerializationError('Error calling function `_ser_model`: KeyboardInterrupt: ')",
    ],
)
def test_an_interruption_that_prefect_or_pydantic_turned_into_an_error_is_one(
    interruption: str, prefect_url: str, environment: dict[str, str]
) -> None:
    program = f"""
        from unittest.mock import patch
        from prefect import flow, get_client, task, task_engine
        from prefect.exceptions import TerminationSignal
        from pydantic_core import PydanticSerializationError
        from hone.environment import home
        from hone_app.cli.orchestration import run_flow

        @task
        def never(): ...

        @flow
        def interrupted():
            with patch.object(task_engine, "_create_task_run_locally", side_effect={interruption}):
                never()

        try:
            run_flow(home(), interrupted)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "KeyboardInterrupt\n"
    filters = {"flows": {"name": {"any_": ["interrupted"]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    (run,) = ask(f"{prefect_url}/flow_runs/filter", filters)
    assert (run["state_type"], run["state"]["message"]) == ("CRASHED", "Execution was interrupted.")
