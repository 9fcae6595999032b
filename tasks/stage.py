"""What the tasks of all stages share: how they are cached, retried, named, and how their progress is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

from prefect import Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.runtime import flow_run

from hone.artifacts import PREFECT_RESULT, Artifact
from hone.config import RunConfig
from hone.environment import home
from hone.line import find, recipe, run
from hone.progress import Progress, tell
from hone.stages import Job, Slot, pinned
from tasks.retries import RETRIES
from tasks.worker import end_with_worker

PROGRESS_SECONDS = 2.0


@dataclass
class InTheStore(CachePolicy):
    """The key of a stage's artifact is the key of its Prefect result, which lies in the artifact's directory.

    Delete the directory and the cache entry is gone with it; damage it and the entry is taken away here.
    """

    stage: str = ""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **_: Any
    ) -> str:
        """`<stage>/<key>/.prefect-result`, a path below the store."""
        job = _job(inputs)
        key = recipe(self.stage, job).key
        found, result = find(self.stage, key, job.home), job.home.store.directory(self.stage, key) / PREFECT_RESULT
        if found is None:
            result.unlink(missing_ok=True)
        elif result.is_file():
            tell(self.stage, "hit", found)
        return f"{self.stage}/{key}/{PREFECT_RESULT}"


StageFunction = TypeVar("StageFunction", bound=Callable[..., Artifact])


def stage_task(name: str, *, retries: int = 0, timeout_seconds: float | None = None) -> Callable[[StageFunction], Any]:
    """A stage as a Prefect task named `<name> <run's name>`, cached in the store, retried for what can pass."""

    def decorate(function: StageFunction) -> Any:
        cached: Task[..., Artifact] = task(
            function,
            name=name,
            task_run_name=name + " {config.name}",
            cache_policy=InTheStore(stage=name),
            persist_result=True,
            timeout_seconds=timeout_seconds,
            **{**RETRIES, "retries": retries},
        )

        @wraps(function)
        def call(*args: Any, **inputs: Any) -> Artifact:
            # The data folder is known when the flow runs, not when its module is imported.
            return cached.with_options(result_storage=home().store.root)(*args, **inputs)

        return call

    return decorate


def settled(config: RunConfig) -> RunConfig:
    """The configuration for one run: what may move while it goes on (a model's alias) stays where it is now."""
    return pinned(config, home())


def perform(name: str, inputs: dict[str, Any], slot: Slot = nullcontext) -> Artifact:
    """Do stage `name` for a task's arguments: `config`, and the artifacts it uses by the names of their stages.

    `slot` is held while its device is used.
    """
    end_with_worker()
    return run(name, replace(_job(inputs), on_progress=_show_progress(name, inputs["config"].name), slot=slot))


def _job(inputs: dict[str, Any]) -> Job:
    artifacts = {name: value for name, value in inputs.items() if isinstance(value, Artifact)}
    tags = {"hone.flow_run_id": str(flow_run.id or "")}
    return Job(inputs["config"], artifacts, home(), tags=tags)


def _show_progress(stage: str, run: str) -> Callable[[Progress], None]:
    """A listener that keeps a progress artifact in the Prefect UI, renewed every two seconds at most."""
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
