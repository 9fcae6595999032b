"""What a run would do now: for each stage its artifact, or the reasons for which it would be made."""

from __future__ import annotations

from dataclasses import dataclass

from hone.config.sections import RunConfig
from hone.environment import Home
from hone.pipeline.run import build_recipe
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.store.artifact import Artifact
from hone.store.recipe import find_nearest, list_reasons


@dataclass(frozen=True)
class StagePlan:
    """What a stage would do now: a hit with its artifact, or a miss with the reasons for it."""

    stage: str
    artifact: Artifact | None
    reasons: tuple[str, ...] = ()


def plan_run(config: RunConfig, home: Home) -> list[StagePlan]:
    """What each stage would do now. One that waits for another runs unless that comes out with the same rows."""
    found: dict[str, Artifact] = {}
    outlooks: list[StagePlan] = []
    for name in list_stages(config):
        stage = STAGES[name]
        needed = [*stage.inputs, *(["base"] if stage.needs_base and config.model.scratch else [])]
        missing = [upstream for upstream in needed if upstream not in found]
        if missing:
            outlooks.append(StagePlan(name, None, (f"waits for {' and '.join(missing)}",)))
            continue
        made_of = build_recipe(name, Job(config, found, home))
        artifact = home.store.find(name, made_of.key)
        stale = stage.stale_reason(artifact) if artifact else ""
        if artifact and not stale:
            found[name] = artifact
            outlooks.append(StagePlan(name, artifact))
        else:
            before = find_nearest(made_of, home.store.list_manifests(name), config.name)
            outlooks.append(StagePlan(name, None, (stale,) if stale else tuple(list_reasons(made_of, before))))
    return outlooks
