"""The line: each stage's artifact, found in the store or made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hone.config.file import dump
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import HoneError
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.progress import Progress, tell
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe, code_digests, find_nearest, installed_versions, list_reasons


def build_recipe(stage: str, job: Job) -> Recipe:
    """All that decides what `stage` will give for `job`, whose inputs are there."""
    definition, config = STAGES[stage], job.config
    return Recipe(
        stage,
        definition.config(config),
        {name: job.inputs[name].digest for name in definition.inputs} | definition.external_digests(job),
        code_digests(definition.code(config), definition.files),
        installed_versions(definition.libraries(config)),
    )


def run_stage(stage: str, job: Job) -> Artifact:
    """The artifact of `stage`: from the store if it is there, else made now. Listeners are informed of its progress."""
    artifact, _ = obtain_artifact(stage, job)
    return artifact


def obtain_artifact(stage: str, job: Job) -> tuple[Artifact, bool]:
    """The artifact of `stage` as `run` returns it, and whether it was there."""
    definition, recipe = STAGES[stage], build_recipe(stage, job)

    def make(out: Path) -> Product:
        def on_progress(progress: Progress) -> None:
            tell(stage, "progress", progress)
            job.on_progress(progress)

        stale_artifact = store.find(stage, recipe.key)
        reasons = list_reasons(recipe, find_nearest(recipe, store.list_manifests(stage), job.config.name))
        tell(stage, "started", [definition.stale_reason(stale_artifact)] if stale_artifact else reasons)
        return definition.make(replace(job, out=out, key=recipe.key, on_progress=on_progress))

    store = job.home.store
    artifact, hit = store.obtain(
        recipe,
        make,
        name=job.config.name,
        config=dump(job.config),
        resumable=definition.resumable,
        is_current=lambda artifact: not definition.stale_reason(artifact),
        on_wait=lambda: tell(stage, "waiting"),
    )
    tell(stage, "hit" if hit else "done", artifact)
    return artifact, hit


def run_ahead(config: RunConfig, home: Home, may_continue: Callable[[], bool]) -> None:
    """Make the artifacts of the first stages, those that tell no server, for as long as `may_go_on` says so.

    Whoever runs these stages next finds the artifacts there; or meets the fault again, which ends this early.
    """
    artifacts: dict[str, Artifact] = {}
    for name in list_stages(config):
        if name == "train" or not may_continue():
            return
        try:
            artifacts[name] = run_stage(name, Job(config, artifacts, home))
        except HoneError:
            return
