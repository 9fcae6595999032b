"""base: a base model from scratch, where the configuration asks for one."""

from __future__ import annotations

from hone.artifacts import Artifact
from hone.config import RunConfig
from tasks.stage import perform, stage_task


@stage_task("base")
def make_base(config: RunConfig, curate: Artifact) -> Artifact:
    """Random weights of the architecture, and a tokenizer trained on the curated text."""
    return perform("base", {"config": config, "curate": curate})
