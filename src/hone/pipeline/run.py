"""The line: each stage's artifact, found in the store or made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hone.config.file import dump_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import HoneError
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, stages_of
from hone.progress import Progress, emit
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe, code_digests, nearest, reasons, versions


def recipe(stage: str, job: Job) -> Recipe:
    """All that decides what `stage` will give for `job`, whose inputs are there."""
    definition, config = STAGES[stage], job.config
    return Recipe(
        stage,
        definition.config(config),
        {name: job.inputs[name].digest for name in definition.inputs} | definition.outside(job),
        code_digests(definition.code(config), definition.files),
        versions(definition.libraries(config)),
    )


def run(stage: str, job: Job) -> Artifact:
    """The artifact of `stage`: from the store if it is there, else made now. Listeners are informed of its progress."""
    artifact, _ = obtain(stage, job)
    return artifact


def obtain(stage: str, job: Job) -> tuple[Artifact, bool]:
    """The artifact of `stage` as `run` returns it, and whether it was there."""
    definition, made_of = STAGES[stage], recipe(stage, job)

    def make(out: Path) -> Product:
        def on_progress(progress: Progress) -> None:
            emit(stage, "progress", progress)
            job.on_progress(progress)

        known = store.find(stage, made_of.key)
        why = reasons(made_of, nearest(made_of, store.manifests(stage), job.config.name))
        emit(stage, "started", [definition.stale(known)] if known else why)
        return definition.make(replace(job, out=out, key=made_of.key, on_progress=on_progress))

    store = job.home.store
    artifact, hit = store.obtain(
        made_of,
        make,
        name=job.config.name,
        config=dump_config(job.config),
        resumable=definition.resumable,
        still_true=lambda found: not definition.stale(found),
        on_wait=lambda: emit(stage, "waiting"),
    )
    emit(stage, "hit" if hit else "done", artifact)
    return artifact, hit


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
