"""train: fine-tunes the model in a process group of its own."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("train", retries=2)
def train(config: RunConfig, tokenize: Artifact, base: Artifact | None = None) -> State[Artifact]:
    """Fine-tune the model. A retry resumes from the last complete checkpoint, in the same MLflow run.

    No GPU slot is taken if the model is in the store or another run is making it.
    """
    return run_stage("train", {"config": config, "tokenize": tokenize, "base": base})
