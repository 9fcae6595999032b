"""Runs stages: finds each stage's artifact in the store or makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hone.config.file import dump_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import HoneError, StoreError
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.progress import Progress, emit
from hone.store.artifact import Artifact, Product
from hone.store.digests import check_unchanged
from hone.store.recipe import Recipe, code_digests, find_nearest, installed_versions, list_reasons
from hone.store.retention import mark_used


def build_recipe(stage: str, job: Job) -> Recipe:
    """The recipe of `stage` for `job`, whose inputs have been made."""
    definition, config = STAGES[stage], job.config
    inputs = (*definition.inputs, *(name for name in definition.optional_inputs if name in job.inputs))
    return Recipe(
        stage,
        definition.config(config),
        {name: job.inputs[name].digest for name in inputs} | definition.external_digests(job),
        code_digests(definition.code(config), definition.files),
        installed_versions(definition.libraries(config)),
    )


def list_miss_reasons(stage: str, job: Job, recipe: Recipe) -> list[str]:
    """Why `stage` has to run: what its artifact lacks, the differences from an earlier run, or that this is the first.

    A name has run if it made an artifact of this stage or registered a version: other stages may take the artifacts of
    another name. A run of another name is no earlier state of this one, so differences from it are no reasons.
    """
    store, name = job.home.store, job.config.name
    if stage in job.damaged:
        return list(job.damaged[stage])
    stale_artifact = store.find(stage, recipe.key)
    if stale_artifact:
        return [STAGES[stage].stale_reason(stale_artifact)]
    if store.directory(stage, recipe.key).exists():
        return [store.describe_damage(stage, recipe.key)]
    manifests = store.list_manifests(stage)
    if all(manifest["name"] != name for manifest in (*manifests, *store.list_manifests("register"))):
        return [f"first run of {name}"]
    return list_reasons(recipe, find_nearest(recipe, manifests, name))


def run_stage(stage: str, job: Job) -> Artifact:
    """The artifact of `stage`, from the store or made now. Progress is reported to the listener (`hone.progress`)."""
    artifact, _ = obtain_artifact(stage, job)
    return artifact


def obtain_artifact(stage: str, job: Job) -> tuple[Artifact, bool]:
    """The artifact of `stage` as `run_stage` returns it, and whether it was in the store.

    Before a stage runs, the bytes of its input artifacts are verified; what is damaged is made again.
    """
    store, definition = job.home.store, STAGES[stage]
    job = replace(job, inputs={name: store.find(name, used.key) or used for name, used in job.inputs.items()})
    recipe = build_recipe(stage, job)
    artifact = store.find(stage, recipe.key)
    if artifact is None or definition.stale_reason(artifact):
        intact = _repair_inputs(job)
        recipe = recipe if intact is job else build_recipe(stage, intact)
        job = intact
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


def _repair_inputs(job: Job) -> Job:
    """The job with intact inputs: those whose bytes are not what was written are made again, with all before them.

    Raises StoreError if they cannot be made again because what they were made of has changed since.
    """
    store = job.home.store
    damaged = {name: faults for name, artifact in job.inputs.items() if (faults := store.verify(artifact))}
    if not damaged:
        return job
    for name in damaged:
        store.discard(job.inputs[name])
    made: dict[str, Artifact] = {}
    for name in list_stages(job.config):
        if job.inputs.keys() <= made.keys():
            break
        made[name] = run_stage(name, replace(job, inputs=made, damaged=damaged))
    for name, artifact in job.inputs.items():
        if made[name].key != artifact.key:
            raise StoreError(
                f"the artifact of {', '.join(damaged)} is damaged, and what {name} was made of has changed since",
                where=str(artifact.path),
                fix="Run again: the line starts from the data as they are now.",
            )
    return replace(job, inputs={name: made[name] for name in job.inputs})


def run_ahead(config: RunConfig, home: Home, may_continue: Callable[[], bool]) -> None:
    """Make the artifacts of the stages up to `tokenize`, which need no server, while `may_continue()` is true.

    The run that follows finds these artifacts in the store. An error ends this function silently: the run meets it
    again and reports it.
    """
    artifacts: dict[str, Artifact] = {}
    for name in list_stages(config):
        if not may_continue():
            return
        try:
            artifacts[name] = run_stage(name, Job(config, artifacts, home))
        except HoneError:
            return
        if name == "tokenize":
            return
