"""`hone sweep` on a real Prefect server: killed, repeated, and what the server and MLflow have of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import preloaded
from tests.pipeline.test_line import ask
from tests.polling import until

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

SWEEP = {"trials": 3, "space": {"training.learning_rate": [1.0e-4, 5.0e-3, 1.0e-3]}, "sampler": "grid"}


def test_a_killed_sweep_is_continued_and_registers_the_best_of_its_trials(
    hone: Hone, small: dict[str, Any], tmp_path: Path, environment: dict[str, str], prefect_url: str
) -> None:
    from hone.sweep.search import TRIALS, read_trials
    from hone.tracking.client import connect

    conf, data = tmp_path / "small.yaml", Path(environment["HONE_HOME"])
    conf.write_text(yaml.safe_dump(small | {"name": "swept", "sweep": SWEEP}))
    command = [preloaded.hone(), "sweep", str(conf)]
    killed = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        until(lambda: list(data.glob(f"store/work/sweep-*/{TRIALS}")), seconds=180)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    [record] = data.glob(f"store/work/sweep-*/{TRIALS}")
    before = read_trials(record)
    assert before and len(before) < 3

    result = hone("sweep", conf)
    assert result.returncode == 0, result.stderr
    assert "3 trials. Trial 1 is the best by validation accuracy" in result.stdout, result.stdout
    assert "swept version 1, alias candidate" in result.stdout
    # The trial that had ended was not run again.
    runs = ask(prefect_url, "/flow_runs/filter", {"flow_runs": {"name": {"any_": ["sweep swept"]}}})
    complete = [run for run in runs if run["state_type"] == "COMPLETED"]
    assert len(complete) == 1
    assert "best of 3: learning_rate 0.005" in complete[0]["state"]["message"]
    tasks = ask(prefect_url, "/task_runs/filter", {"flow_runs": {"id": {"any_": [complete[0]["id"]]}}})
    names = sorted(task["name"] for task in tasks if task["name"].startswith("trial"))
    values = ["0.0001", "0.005", "0.001"]
    assert names == [f"trial {i}: learning_rate {values[i]}" for i in range(3) if i not in before]
    client = connect(f"sqlite:///{data}/mlflow/mlflow.db")
    parents = client.search_runs(["1"], "tags.`hone.sweep_key` != ''")
    assert [parent.info.status for parent in parents] == ["FINISHED"]
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parents[0].info.run_id}'")
    assert sorted(child.data.tags["hone.trial"] for child in children) == ["0", "1", "2"]

    # Again there is nothing to do; a wrong field ends before anything starts.
    again = hone("sweep", conf)
    assert again.returncode == 0, again.stderr
    assert "sweep     up to date · 3 trials" in again.stdout
    refused = hone("sweep", conf, "sweep.space.training.learning_rat=[1]")
    assert refused.returncode == 2
    assert "sweep.space, training.learning_rat: no such field" in refused.stderr
