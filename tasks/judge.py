"""judge: has a model behind an API compare the trained model's answers with others."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("judge", retries=2)
def judge(config: RunConfig, validate: Artifact, evaluate: Artifact) -> State[Artifact]:
    """Compare the answers. A retry asks only for the verdicts that are missing."""
    return run_stage("judge", {"config": config, "validate": validate, "evaluate": evaluate})
