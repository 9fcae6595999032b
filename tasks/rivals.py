"""rivals: asks the models that are prompted instead of trained."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("rivals", retries=2)
def ask_rivals(
    config: RunConfig, validate: Artifact, tokenize: Artifact, base: Artifact | None = None
) -> State[Artifact]:
    """Ask the rivals the test rows. A retry asks only what has no answer yet."""
    return run_stage("rivals", {"config": config, "validate": validate, "tokenize": tokenize, "base": base})
