"""The plan of a run: for each stage its artifact, or the reasons why it would run."""

from __future__ import annotations

from dataclasses import dataclass

from hone.config.sections import RunConfig
from hone.environment import Home
from hone.pipeline.run import build_recipe, list_miss_reasons
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_inputs, list_stages
from hone.store.artifact import Artifact


@dataclass(frozen=True)
class StagePlan:
    """What a stage would do now: a hit with its artifact, or a miss with its reasons."""

    stage: str
    artifact: Artifact | None
    reasons: tuple[str, ...] = ()


def plan_run(config: RunConfig, home: Home) -> list[StagePlan]:
    """What each stage would do now, in order.

    A stage whose inputs are not made yet is pending: it runs unless the inputs turn out to be the same as before.
    """
    artifacts: dict[str, Artifact] = {}
    stage_plans: list[StagePlan] = []
    for name in list_stages(config):
        stage = STAGES[name]
        missing = [upstream for upstream in list_inputs(name, config) if upstream not in artifacts]
        if missing:
            stage_plans.append(StagePlan(name, None, (f"waits for {' and '.join(missing)}",)))
            continue
        job = Job(config, artifacts, home)
        recipe = build_recipe(name, job)
        artifact = home.store.find(name, recipe.key)
        if artifact and not stage.stale_reason(artifact):
            artifacts[name] = artifact
            stage_plans.append(StagePlan(name, artifact))
        else:
            stage_plans.append(StagePlan(name, None, tuple(list_miss_reasons(name, job, recipe))))
    return stage_plans
