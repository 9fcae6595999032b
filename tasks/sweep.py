"""sweep: trains with other values and finds the best; each trial is a task run of its own."""

from __future__ import annotations

from collections.abc import Callable

from prefect import Task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from hone.config.sections import RunConfig
from hone.evaluation.report import figures
from hone.store import layout
from hone.store.artifact import Artifact
from hone.sweep.study import Trial
from hone.sweep.words import describe_values
from tasks.runtime.pages import publish
from tasks.stage import get_artifact, run_stage, stage_task

STATES = {"complete": "Completed", "pruned": "Ended early", "failed": "Trial failed"}


@stage_task("sweep", retries=2)
def search(config: RunConfig, ingest: Artifact, curate: Artifact) -> State[Artifact]:
    """Run the trials of the sweep. A retry continues it. The UI shows the trials as a table."""
    inputs = {"config": config, "ingest": ingest, "curate": curate}
    state = run_stage("sweep", inputs, call_trial=_call_in_task)
    result = get_artifact(state).read_json(layout.SWEEP)
    table = [
        {
            "trial": trial["number"],
            "state": trial["state"],
            result["metric"]["title"]: figures.number(trial["value"]),
            "values": describe_values(trial["changes"]),
        }
        for trial in result["trials"]
    ]
    description = f"{len(table):,} trials, the best is trial {result['best']}"
    publish(create_table_artifact, table, key=f"sweep-{config.name}", description=description)
    return state


def _call_in_task(number: int, words: str, run: Callable[[], Trial]) -> Trial:
    """Run a trial as a Prefect task, whose state says how it ended."""

    def run_trial() -> State[Trial]:
        trial = run()
        message = trial.reason or f"{figures.number(trial.value)}: {words}"
        return Completed(name=STATES[trial.state], message=message, data=trial)

    name = f"trial {number}: {words}"
    task: Task[[], State[Trial]] = Task(
        run_trial,
        name="trial",
        task_run_name=name.replace("{", "(").replace("}", ")"),
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    trial: Trial = task().result()
    return trial
