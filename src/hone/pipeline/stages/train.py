"""train: fine-tunes the model in a training process and logs its curves to an MLflow run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hone.config.sections import RunConfig
from hone.evaluation.report import figures
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, compute_base_digest, get_module, list_libraries
from hone.progress import Progress
from hone.store.artifact import Artifact, Product
from hone.training.device import resolve_device
from hone.training.libraries import list_optimizer_libraries

log = logging.getLogger(__name__)


def training_run(job: Job, key: str) -> dict[str, Any]:
    """Arguments of `hone.tracking.run_log.training_run` for the training with this key."""
    config = job.config
    return {
        "tracking_uri": job.home.tracking_uri,
        "artifact_root": job.home.artifact_root,
        "experiment": config.registration.experiment,
        "name": config.name,
        "key": key,
        "params": _flatten(config.model_dump(mode="json", include={"model", "method", "training", "tokenization"})),
        "tags": dict(job.tags),
    }


def _make(job: Job) -> Product:
    from hone.tracking import run_log
    from hone.training.launch import train

    config = job.config
    with job.slot(), run_log.training_run(**training_run(job, job.key)) as run:

        def on_event(event: dict[str, Any]) -> None:
            run.hear(event)
            job.on_event(event)
            if event["type"] == "out_of_memory":
                log.warning(
                    "out of memory: training restarts from its last checkpoint, %d rows at a time (%s)",
                    event["micro_batch_size"],
                    event["detail"],
                )
            if event["type"] == "started":
                steps["total"] = event["steps"]
                job.on_progress(Progress(0, steps["total"], "steps", note="training"))
            if event["type"] == "step":
                job.on_progress(Progress(event["step"], steps["total"], "steps", figures={"loss": event["loss"]}))
            if event.get("unsent"):
                log.warning("%d events of the training were not reported; history.jsonl has all", event["unsent"])

        steps = {"total": 0}
        job.on_progress(Progress(0, 0, "steps", note="loading the model"))
        product = train(
            job.path("tokenize"),
            job.out,
            base=job.base().path,
            objective=(config.objective.kind, config.objective.options()),
            method=(config.method.kind, config.method.options()),
            settings=config.training.model_dump(),
            machine=job.home.machine,
            on_event=on_event,
        )
        if lost := product.facts.get("lost_steps"):
            log.warning("the figures of %d steps are lost: their lines in history.jsonl were damaged", lost)
        if course := product.facts.get("course"):
            log.warning("%s", course)
        return replace(product, facts=product.facts | {"mlflow": {"run_id": run.run_id}})


def _config(config: RunConfig) -> dict[str, Any]:
    """What decides the result. How often checkpoints are saved does not; the device counts by what it resolves to."""
    sections = config.model_dump(include={"objective": True, "method": True, "training": True})
    del sections["training"]["checkpoint_seconds"]
    sections["training"]["device"] = resolve_device(sections["training"]["device"])
    return sections


def _flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return flat


def _describe(artifact: Artifact) -> str:
    facts = artifact.facts()
    parts = [f"{facts['steps']:,} steps, {facts['epochs']:.3g} epochs, {facts['tokens']:,} tokens"]
    if facts["valid_loss"] is not None:
        parts.append(f"validation loss {figures.number(facts['valid_loss'])}")
    return ", ".join([*parts, f"trained for {figures.duration(facts['seconds'])}"])


TRAIN = Stage(
    make=_make,
    describe=_describe,
    config=_config,
    code=lambda c: [
        *("hone.training.launch", "hone.training.loop"),
        *(get_module(OBJECTIVES, c.objective), get_module(METHODS, c.method)),
    ],
    libraries=lambda c: [
        *("numpy", "pyarrow", "safetensors", "torch", "transformers"),
        *(list_libraries(OBJECTIVES, c.objective) + list_libraries(METHODS, c.method)),
        *list_optimizer_libraries(c.training.model_dump()),
    ],
    inputs=("tokenize",),
    needs_base=True,
    external_digests=compute_base_digest,
    resumable=True,
)
