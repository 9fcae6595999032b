"""ingest: the source's rows."""

from __future__ import annotations

from hone.artifacts import Artifact
from hone.config import RunConfig
from tasks.stage import perform, stage_task


@stage_task("ingest", retries=3, timeout_seconds=4 * 3600)
def ingest(config: RunConfig) -> Artifact:
    """The rows of the configured source, and those refused."""
    return perform("ingest", {"config": config})
