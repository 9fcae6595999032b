"""ingest: reads the rows of the source."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("ingest", retries=3, timeout_seconds=4 * 3600)
def ingest(config: RunConfig) -> State[Artifact]:
    """Read the rows of the configured source and record the refused ones."""
    return run_stage("ingest", {"config": config})
