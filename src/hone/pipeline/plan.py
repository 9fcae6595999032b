"""What a run would do now: for each stage its artifact, or the reasons for which it would be made."""

from __future__ import annotations

from dataclasses import dataclass

from hone.config.sections import RunConfig
from hone.environment import Home
from hone.pipeline.run import recipe
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, stages_of
from hone.store.artifact import Artifact
from hone.store.recipe import nearest, reasons


@dataclass(frozen=True)
class Outlook:
    """What a stage would do now: a hit with its artifact, or a miss with the reasons for it."""

    stage: str
    artifact: Artifact | None
    reasons: tuple[str, ...] = ()


def plan(config: RunConfig, home: Home) -> list[Outlook]:
    """What each stage would do now. One that waits for another runs unless that comes out with the same rows."""
    found: dict[str, Artifact] = {}
    outlooks: list[Outlook] = []
    for name in stages_of(config):
        stage = STAGES[name]
        needed = [*stage.inputs, *(["base"] if stage.needs_base and config.model.scratch else [])]
        missing = [upstream for upstream in needed if upstream not in found]
        if missing:
            outlooks.append(Outlook(name, None, (f"waits for {' and '.join(missing)}",)))
            continue
        made_of = recipe(name, Job(config, found, home))
        artifact = home.store.find(name, made_of.key)
        stale = stage.stale(artifact) if artifact else ""
        if artifact and not stale:
            found[name] = artifact
            outlooks.append(Outlook(name, artifact))
        else:
            before = nearest(made_of, home.store.manifests(name), config.name)
            outlooks.append(Outlook(name, None, (stale,) if stale else tuple(reasons(made_of, before))))
    return outlooks
