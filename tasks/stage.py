"""What the tasks of all stages share: retries, names, and how the Prefect UI shows them.

The store alone decides whether a stage has to run: Prefect caches no results. A task whose artifact was in the store
ends in the state `Cached`, one that made it in `Completed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec
from uuid import UUID

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from hone.config.sections import RunConfig
from hone.environment import home
from hone.pipeline.run import obtain_artifact
from hone.pipeline.stage import Job, Slot, pin_base
from hone.progress import Progress
from hone.store.artifact import Artifact
from tasks.runtime.retries import RETRIES
from tasks.runtime.worker import end_with_worker

PROGRESS_SECONDS = 2.0  # each update is a request to the server

P = ParamSpec("P")


def stage_task(
    name: str, *, retries: int = 0, timeout_seconds: float | None = None
) -> Callable[[Callable[P, State[Artifact]]], Callable[P, Artifact]]:
    """Turn a function into a Prefect task named `<name> <run's name>`, retried after transient faults.

    The decorated function returns the state from `run_stage`; calling the task returns the artifact.
    """

    def decorate(function: Callable[P, State[Artifact]]) -> Callable[P, Artifact]:
        stage: Task[P, State[Artifact]] = Task(
            function,
            name=name,
            task_run_name=name + " {config.name}",
            cache_policy=NO_CACHE,
            persist_result=False,
            timeout_seconds=timeout_seconds,
            **{**RETRIES, "retries": retries},
        )

        @wraps(function)
        def call(*args: P.args, **inputs: P.kwargs) -> Artifact:
            artifact: Artifact = stage(*args, **inputs).result()
            return artifact

        return call

    return decorate


def pin_config(config: RunConfig) -> RunConfig:
    """The configuration for one run: a base model's alias, which may move, is replaced by its version number."""
    return pin_base(config, home())


def run_stage(name: str, inputs: dict[str, Any], slot: Slot = nullcontext) -> State[Artifact]:
    """Run stage `name` with a task's arguments: `config`, and the input artifacts by stage name.

    Returns the task's state, which contains the artifact. `slot` is held while a training uses its device.
    """
    end_with_worker()
    job = replace(_build_job(inputs), on_progress=_show_progress(name, inputs["config"].name), slot=slot)
    artifact, hit = obtain_artifact(name, job)
    return Completed(name="Cached" if hit else "Completed", data=artifact)


def get_artifact(state: State[Artifact]) -> Artifact:
    """The artifact in a state that `run_stage` returned."""
    data: Any = state.data
    artifact: Artifact = data
    return artifact


def _build_job(inputs: dict[str, Any]) -> Job:
    artifacts = {name: value for name, value in inputs.items() if isinstance(value, Artifact)}
    tags = {"hone.flow_run_id": str(flow_run.id or "")}
    if flow_run.ui_url:
        tags["hone.flow_run_url"] = flow_run.ui_url
    return Job(inputs["config"], artifacts, home(), tags=tags)


def _show_progress(stage: str, run: str) -> Callable[[Progress], None]:
    """A listener that updates a progress artifact in the Prefect UI, at most every PROGRESS_SECONDS."""
    shown: dict[str, Any] = {"id": None, "at": 0.0}

    def show(progress: Progress) -> None:
        now = time.monotonic()
        if not progress.total or now - shown["at"] < PROGRESS_SECONDS:
            return
        shown["at"] = now
        share = 100.0 * progress.done / progress.total
        if shown["id"] is None:
            shown["id"] = create_progress_artifact(share, key=f"{stage}-{run}", description=f"{stage} {run}")
        else:
            update_progress_artifact(UUID(str(shown["id"])), progress=share)

    return show
