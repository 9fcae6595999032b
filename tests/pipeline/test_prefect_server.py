"""The Prefect server that Hone starts, on SQLite."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

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
