"""evaluate: compares the model with the baselines on the test split."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.runtime.pages import publish
from tasks.stage import get_artifact, run_stage, stage_task


@stage_task("evaluate")
def evaluate(
    config: RunConfig,
    train: Artifact,
    tokenize: Artifact,
    validate: Artifact,
    base: Artifact | None = None,
    rivals: Artifact | None = None,
    benchmarks: Artifact | None = None,
    base_benchmarks: Artifact | None = None,
) -> State[Artifact]:
    """Compute metrics with intervals for the model and the baselines. The UI shows them as a table."""
    stages = {"train": train, "tokenize": tokenize, "validate": validate, "base": base, "rivals": rivals}
    benchmarked = {"benchmarks": benchmarks, "benchmarks-base": base_benchmarks}
    state = run_stage("evaluate", {"config": config, **stages, **benchmarked})
    facts = get_artifact(state).facts()
    prompted = {f"{name} (prompted)": figures for name, figures in facts.get("rivals", {}).items()}
    systems = {"model": facts["metrics"], **facts["baselines"], **prompted}
    table = [
        {"system": system} | {name: f"{value:.4f}" for name, value in metrics.items()}
        for system, metrics in systems.items()
    ]
    description = f"{facts['rows']:,} test rows"
    publish(create_table_artifact, table, key=f"metrics-{config.name}", description=description)
    return state
