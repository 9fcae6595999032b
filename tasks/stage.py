"""What the tasks of all stages share: retries, names, and how the Prefect UI shows them.

The store alone decides whether a stage has to run: Prefect caches no results. A task whose artifact was in the store
ends in the state `Cached`, one that made it in `Completed`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec
from uuid import UUID

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from hone.config.sections import RunConfig
from hone.display import escape_controls
from hone.environment import home
from hone.pipeline.run import obtain_artifact
from hone.pipeline.stage import Job, pin_base
from hone.pipeline.stages import STAGES
from hone.progress import Pace, Progress, listening
from hone.store.artifact import Artifact
from tasks.runtime import pages
from tasks.runtime.retries import RETRIES
from tasks.runtime.slots import gpu_slot
from tasks.runtime.worker import end_with_worker

PROGRESS_SECONDS = 2.0  # each update is a request to the server
SHOWN_REASONS = 5
LOGGED_PARTS = 10  # of a training, each with a line in the run's log

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


def run_stage(name: str, inputs: dict[str, Any], **options: Any) -> State[Artifact]:
    """Run stage `name` with a task's arguments: `config`, and the input artifacts by stage name.

    `options` are further fields of the Job. Returns the task's state, which contains the artifact. A GPU slot is held
    while a training uses its device.
    """
    end_with_worker()
    progress_bar = _ProgressBar(name, inputs["config"].name)
    job = replace(_build_job(inputs), on_progress=progress_bar.show, slot=gpu_slot, **options)
    with listening(_StageLog(name, get_run_logger())):
        artifact, hit = obtain_artifact(name, job)
    progress_bar.complete()
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


class _ProgressBar:
    """A progress artifact in the Prefect UI, created with the first report and updated every PROGRESS_SECONDS."""

    def __init__(self, stage: str, run: str) -> None:
        self._stage, self._run = stage, run
        self._id: UUID | None = None
        self._updated = 0.0

    def show(self, progress: Progress) -> None:
        """Show the share that is done, unless the bar was updated just now or the server has not answered yet."""
        now = time.monotonic()
        if progress.total and now - self._updated >= PROGRESS_SECONDS and pages.is_idle():
            self._updated = now
            pages.post(self._update, 100.0 * progress.done / progress.total)

    def complete(self) -> None:
        """Show that the stage is complete. The bar of a failed stage is left as it is."""
        if self._updated:
            pages.publish(self._update, 100.0)

    def _update(self, percent: float) -> None:
        if self._id is None:
            key, description = f"{self._stage}-{self._run}", f"{self._stage} {self._run}"
            self._id = UUID(str(create_progress_artifact(percent, key=key, description=description)))
        else:
            update_progress_artifact(self._id, progress=percent)


class _StageLog:
    """A listener that writes the events of a stage to the run's log: its reasons, its progress, its result."""

    def __init__(self, stage: str, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._stage, self._log = stage, logger
        self._pace, self._part = Pace(), 0

    def __call__(self, stage: str, event: str, detail: object) -> None:
        if stage != self._stage and event not in ("started", "done"):  # an input that is made again
            return
        if isinstance(detail, Progress):
            self._log_part(detail)
        elif event == "started":
            reasons = detail if isinstance(detail, list) else []
            more = [f"and {len(reasons) - SHOWN_REASONS} more reasons"] if len(reasons) > SHOWN_REASONS else []
            self._log.info("%s starts: %s", stage, "; ".join([*reasons[:SHOWN_REASONS], *more]))
        elif event == "waiting":
            self._log.info("%s waits for another run that is making the same", stage)
        elif isinstance(detail, Artifact):
            cached = "cached: " if event == "hit" else ""
            self._log.info("%s: %s%s", stage, cached, escape_controls(STAGES[stage].describe(detail)))
            for warning in STAGES[stage].list_warnings(detail) if cached else ():
                self._log.warning("%s: %s", stage, escape_controls(warning))

    def _log_part(self, progress: Progress) -> None:
        """Log the progress of a training each time another tenth of its steps is done."""
        self._pace.add(progress, time.monotonic())
        if not progress.figures or not progress.total:
            return
        part = LOGGED_PARTS * progress.done // progress.total
        if part > self._part:
            self._log.info("%s: %s", self._stage, ", ".join(words.strip() for words in self._pace.describe()))
        self._part = part
