"""Runs stages: finds each stage's artifact in the store or makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hone.config.file import dump_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import HoneError
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.progress import Progress, emit
from hone.store.artifact import Artifact, Product
from hone.store.digests import check_unchanged
from hone.store.recipe import Recipe, code_digests, find_nearest, installed_versions, list_reasons
from hone.store.retention import mark_used
from hone.store.store import Store


def build_recipe(stage: str, job: Job) -> Recipe:
    """The recipe of `stage` for `job`, whose inputs have been made."""
    definition, config = STAGES[stage], job.config
    return Recipe(
        stage,
        definition.config(config),
        {name: job.inputs[name].digest for name in definition.inputs} | definition.external_digests(job),
        code_digests(definition.code(config), definition.files),
        installed_versions(definition.libraries(config)),
    )


def list_miss_reasons(stage: str, job: Job, recipe: Recipe) -> list[str]:
    """Why `stage` has to run: what its artifact lacks, the differences from an earlier run, or that this is the first.

    A name has run if it made an artifact of this stage or registered a version: other stages may take the artifacts of
    another name. A run of another name is no earlier state of this one, so differences from it are no reasons.
    """
    store, name = job.home.store, job.config.name
    stale_artifact = store.find(stage, recipe.key)
    if stale_artifact:
        return [STAGES[stage].stale_reason(stale_artifact)]
    manifests = _list_manifests(store, stage)
    if all(manifest["name"] != name for manifest in (*manifests, *_list_manifests(store, "register"))):
        return [f"first run of {name}"]
    return list_reasons(recipe, find_nearest(recipe, manifests, name))


def _list_manifests(store: Store, stage: str) -> list[dict[str, Any]]:
    while True:
        try:
            return store.list_manifests(stage)
        except FileNotFoundError:  # `hone gc` removed one in the meantime
            continue


def run_stage(stage: str, job: Job) -> Artifact:
    """The artifact of `stage`, from the store or made now. Progress is reported to the listener (`hone.progress`)."""
    artifact, _ = obtain_artifact(stage, job)
    return artifact


def obtain_artifact(stage: str, job: Job) -> tuple[Artifact, bool]:
    """The artifact of `stage` as `run_stage` returns it, and whether it was in the store."""
    definition, recipe = STAGES[stage], build_recipe(stage, job)
    inputs = [artifact.path for artifact in job.inputs.values()]

    def make(out: Path) -> Product:
        def on_progress(progress: Progress) -> None:
            emit(stage, "progress", progress)
            job.on_progress(progress)

        emit(stage, "started", list_miss_reasons(stage, job, recipe))
        mark_used(inputs)
        product = definition.make(replace(job, out=out, key=recipe.key, on_progress=on_progress))
        mark_used(inputs)  # by the next stages too: a training may take longer than unused artifacts are kept
        check_unchanged(recipe.inputs, recipe.inputs | definition.external_digests(job), stage)
        return product

    def is_current(artifact: Artifact) -> bool:
        mark_used([artifact.path])  # while the lock is held, so that it is not removed now
        return not definition.stale_reason(artifact)

    store = job.home.store
    artifact, hit = store.obtain(
        recipe,
        make,
        name=job.config.name,
        config=dump_config(job.config),
        resumable=definition.resumable,
        is_current=is_current,
        on_wait=lambda: emit(stage, "waiting"),
    )
    emit(stage, "hit" if hit else "done", artifact)
    return artifact, hit


def run_ahead(config: RunConfig, home: Home, may_continue: Callable[[], bool]) -> None:
    """Make the artifacts of the stages before `train`, which need no server, while `may_continue()` is true.

    The run that follows finds these artifacts in the store. An error ends this function silently: the run meets it
    again and reports it.
    """
    artifacts: dict[str, Artifact] = {}
    for name in list_stages(config):
        if name == "train" or not may_continue():
            return
        try:
            artifacts[name] = run_stage(name, Job(config, artifacts, home))
        except HoneError:
            return
