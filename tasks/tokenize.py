"""tokenize: encodes the splits into Arrow files."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("tokenize")
def tokenize(config: RunConfig, validate: Artifact, base: Artifact | None = None) -> State[Artifact]:
    """Encode the splits and record what was truncated."""
    return run_stage("tokenize", {"config": config, "validate": validate, "base": base})
