"""benchmarks: run lm-evaluation-harness on the fine-tuned model, and on its base model."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.stage import run_stage, stage_task


@stage_task("benchmarks-base")
def run_base_benchmarks(config: RunConfig, base: Artifact | None = None) -> State[Artifact]:
    """Run the tasks on the base model. Later trainings on the same base use its results."""
    return run_stage("benchmarks-base", {"config": config, "base": base})


@stage_task("benchmarks")
def run_benchmarks(config: RunConfig, train: Artifact, base: Artifact | None = None) -> State[Artifact]:
    """Run the tasks on the fine-tuned model."""
    return run_stage("benchmarks", {"config": config, "train": train, "base": base})
