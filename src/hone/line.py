"""The line: each stage's artifact found in the store or made, and what a run would do now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hone.artifacts import Artifact, Product, Recipe
from hone.config import RunConfig
from hone.config_file import dump
from hone.environment import Home
from hone.errors import HoneError
from hone.progress import Progress, tell
from hone.recipes import code_digests, nearest, reasons, versions
from hone.stages import STAGES, Job


def recipe(stage: str, job: Job) -> Recipe:
    """All that decides what `stage` will give for `job`, whose inputs are there."""
    plan, config = STAGES[stage], job.config
    return Recipe(
        stage,
        plan.decides(config),
        {name: job.inputs[name].digest for name in plan.keyed} | plan.outside(job),
        code_digests(plan.code(config), plan.files),
        versions(plan.libraries(config)),
    )


def find(stage: str, key: str, home: Home) -> Artifact | None:
    """The artifact of `key`; None where there is none, where it is damaged, or no longer true."""
    artifact = home.store.find(stage, key)
    return None if artifact is None or STAGES[stage].untrue(artifact) else artifact


def run(stage: str, job: Job) -> Artifact:
    """The artifact of `stage`: from the store if it is there, else made now. Tells listeners how it goes."""
    plan, made_of = STAGES[stage], recipe(stage, job)

    def make(out: Path) -> Product:
        def on_progress(progress: Progress) -> None:
            tell(stage, "progress", progress)
            job.on_progress(progress)

        known = store.find(stage, made_of.key)
        why = reasons(made_of, nearest(made_of, store.manifests(stage), job.config.name))
        tell(stage, "started", [plan.untrue(known)] if known else why)
        return plan.make(replace(job, out=out, key=made_of.key, on_progress=on_progress))

    store = job.home.store
    artifact, hit = store.obtain(
        made_of,
        make,
        name=job.config.name,
        config=dump(job.config),
        resumable=plan.resumable,
        still_true=lambda found: not plan.untrue(found),
        on_wait=lambda: tell(stage, "waiting"),
    )
    tell(stage, "hit" if hit else "done", artifact)
    return artifact


def run_ahead(config: RunConfig, home: Home, may_go_on: Callable[[], bool]) -> None:
    """Make the artifacts of the first stages, those that tell no server, for as long as `may_go_on` says so.

    Whoever runs these stages next finds the artifacts there; or meets the fault again, which ends this early.
    """
    found: dict[str, Artifact] = {}
    for name in stages_of(config):
        if name == "train" or not may_go_on():
            return
        try:
            found[name] = run(name, Job(config, found, home))
        except HoneError:
            return


def stages_of(config: RunConfig) -> list[str]:
    """The stages that a run of `config` has, in order."""
    return [name for name, stage in STAGES.items() if stage.when(config)]


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
        needed = [*stage.keyed, *(["base"] if stage.needs_base and config.model.scratch else [])]
        missing = [upstream for upstream in needed if upstream not in found]
        if missing:
            outlooks.append(Outlook(name, None, (f"waits for {' and '.join(missing)}",)))
            continue
        made_of = recipe(name, Job(config, found, home))
        artifact = home.store.find(name, made_of.key)
        untrue = stage.untrue(artifact) if artifact else ""
        if artifact and not untrue:
            found[name] = artifact
            outlooks.append(Outlook(name, artifact))
        else:
            before = nearest(made_of, home.store.manifests(name), config.name)
            outlooks.append(Outlook(name, None, (untrue,) if untrue else tuple(reasons(made_of, before))))
    return outlooks
