"""tokenize: text as tokens, in Arrow files."""

from __future__ import annotations

from hone.artifacts import Artifact
from hone.config import RunConfig
from tasks.stage import perform, stage_task


@stage_task("tokenize")
def tokenize(config: RunConfig, validate: Artifact, base: Artifact | None = None) -> Artifact:
    """The splits as tokens, with an account of what was cut off."""
    return perform("tokenize", {"config": config, "validate": validate, "base": base})
