"""The Prefect server that Hone starts, on SQLite."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

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
