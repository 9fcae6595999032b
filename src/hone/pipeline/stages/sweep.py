"""sweep: trains with other values of some fields and finds the best by a validation metric. No stage of a usual run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from threading import Event
from typing import Any

from hone.config.sections import RunConfig
from hone.errors import TrainingError
from hone.evaluation.report import figures
from hone.methods import METHODS
from hone.models.locate import BaseModel
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, compute_base_digest, get_module, list_libraries
from hone.pipeline.stages.train import TRAIN
from hone.progress import Progress, ignore, silent
from hone.store import layout
from hone.store.artifact import Artifact, Product
from hone.store.files import write_synced
from hone.sweep.search import TRIALS, search
from hone.sweep.study import Study, Trial
from hone.sweep.trial_config import build_trial_config, check_space, list_ends, list_space, select_values
from hone.sweep.words import describe_values
from hone.training.libraries import list_optimizer_libraries


def build_study(config: RunConfig) -> Study:
    """The question of the configuration's sweep."""
    sweep, selection = config.sweep, config.choose_sweep_metric()
    prune = sweep.prune
    return Study(
        list_space(config),
        sweep.sampler,
        sweep.seed,
        selection.lower,
        prune.after_evaluations if prune else 0,
        prune.after_trials if prune else 0,
        partial(select_values, config),
    )


def _make(job: Job) -> Product:
    from hone.pipeline.trials import run_trial
    from hone.tracking import sweep_run

    config, study = job.config, build_study(job.config)
    selection = config.choose_sweep_metric()
    check_space(config)
    log = sweep_run.open_sweep_run(
        job.home.tracking_uri,
        experiment=config.registration.experiment,
        artifact_root=job.home.artifact_root,
        name=config.name,
        key=job.key,
        metric=selection.metric,
        space=list_space(config),
        tags=job.tags,
    )
    trial_job = dataclasses.replace(job, tags={**job.tags, **log.child_tags()}, on_progress=ignore)
    done: list[Trial] = []

    def run(number: int, values: Mapping[str, Any], finished: Sequence[Trial], end: Event) -> Trial:
        words = describe_values(select_values(config, values))
        call = partial(run_trial, trial_job, study, selection.metric, number, values, finished, end)
        with silent() if config.sweep.parallel > 1 else nullcontext():
            return job.call_trial(number, words, call)

    def on_trial(trial: Trial) -> None:
        done.append(trial)
        best = study.choose_best(done)
        log.add(trial.number, trial.state, trial.key, trial.value, best.value if best else None)
        note = f"best {figures.number(best.value)}: {describe_values(best.changes)}" if best else ""
        job.on_progress(Progress(len(done), config.sweep.trials, "trials", note=note))

    job.on_progress(Progress(0, config.sweep.trials, "trials"))
    with log:
        trials = search(
            study,
            trials=config.sweep.trials,
            parallel=config.sweep.parallel,
            record=job.out / TRIALS,
            run=run,
            on_trial=on_trial,
        )
        best = study.choose_best(trials)
        if best is None:
            raise TrainingError(
                f"none of the {len(trials)} trials was completed; the first: {trials[0].reason}",
                where="sweep",
                fix="Correct the space or the configuration.",
            )
        result = {
            "metric": dataclasses.asdict(selection),
            "best": best.number,
            "space": list_space(config),
            "importances": study.measure_importances(trials),
            "trials": [dataclasses.asdict(trial) for trial in trials],
        }
        write_synced(job.out / layout.SWEEP, json.dumps(result, indent=1))
        log.finish(best.number, best.changes, job.out / layout.SWEEP)
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")}
    facts = {"best": dataclasses.asdict(best), "metric": dataclasses.asdict(selection), **counts, "run_id": log.run_id}
    return Product(len(trials), (layout.SWEEP,), facts)


def choose_config(config: RunConfig, tried: Artifact) -> RunConfig:
    """The configuration with the values of the best trial."""
    return build_trial_config(config, tried.facts()["best"]["values"])


def _describe(artifact: Artifact) -> str:
    facts = artifact.facts()
    best, title = facts["best"], facts["metric"]["title"]
    counts = ", ".join(f"{facts[state]} {state}" for state in ("complete", "pruned", "failed") if facts[state])
    figure = figures.shown({"value": best["value"], "share": facts["metric"]["share"]})
    words = f"{figures.within_sentence(title)} {figure} ({describe_values(best['changes'])})"
    return f"{counts}; best: trial {best['number']}, {words}"


def _list_warnings(artifact: Artifact) -> list[str]:
    failed = [trial for trial in artifact.read_json(layout.SWEEP)["trials"] if trial["state"] == "failed"]
    return [f"trial {trial['number']} failed: {trial['reason']}" for trial in failed]


def _config(config: RunConfig) -> dict[str, Any]:
    sections = config.model_dump(include={"model": {"scratch"}, "tokenization": True, "validation": True})
    return TRAIN.config(config) | sections | {"sweep": config.sweep.model_dump(exclude={"reuse", "reused"})}


def _list_kinds(config: RunConfig) -> list[str]:
    """The methods of the trials."""
    space = config.sweep.space
    methods = [str(kind) for kind in list_ends(space.get("method.kind", []))]
    methods += [str(method["kind"]) for method in list_ends(space.get("method", [])) if "kind" in method]
    return [kind for kind in dict.fromkeys([config.method.kind, *methods]) if kind in METHODS]


def _digest_bases(job: Job) -> dict[str, str]:
    """The digests of the base models that the trials start from."""
    if job.config.model.scratch:
        return {}
    digests = compute_base_digest(job)
    for base in list_ends(job.config.sweep.space.get("model.base", [])):
        model: BaseModel = dataclasses.replace(job, config=_with_base(job.config, str(base))).base()
        digests[f"base model {base}"] = model.compute_digest(job.home.store.memo.digest)
    return digests


def _with_base(config: RunConfig, base: str) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"base": base})})


SWEEP = Stage(
    make=_make,
    describe=_describe,
    list_warnings=_list_warnings,
    config=_config,
    code=lambda c: [
        *(
            "hone.sweep.search",
            "hone.sweep.watch",
            "hone.training.launch",
            "hone.training.loop",
            "hone.tokenization.tokenize",
        ),
        *(get_module(OBJECTIVES, c.objective), *(METHODS[kind].__module__ for kind in _list_kinds(c))),
    ],
    libraries=lambda c: [
        *("numpy", "optuna", "pyarrow", "safetensors", "tokenizers", "torch", "transformers"),
        *list_libraries(OBJECTIVES, c.objective),
        *(library for kind in _list_kinds(c) for library in getattr(METHODS[kind], "libraries", ())),
        *(
            library
            for optimizer in [
                c.training.model_dump()["optimizer"],
                *list_ends(c.sweep.space.get("training.optimizer", [])),
            ]
            for library in list_optimizer_libraries({"optimizer": optimizer})
        ),
    ],
    inputs=("ingest", "curate"),
    applies=lambda _: False,
    external_digests=_digest_bases,
    resumable=True,
)
