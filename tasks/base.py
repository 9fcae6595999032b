"""base: makes a base model from scratch if the configuration asks for one."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("base")
def make_base(config: RunConfig, curate: Artifact) -> State[Artifact]:
    """Create a model with random weights and train its tokenizer on the curated text."""
    return run_stage("base", {"config": config, "curate": curate})
