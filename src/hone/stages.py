"""The stages in order: what decides each one's output, and how each is done.

The one place where the configuration is taken apart: the functions called here take values.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hone import scratch
from hone.artifacts import Artifact, Product, file_digest
from hone.base_models import BaseModel, locate
from hone.config import Part, RunConfig
from hone.config_file import dump
from hone.curation import STEPS
from hone.environment import Home
from hone.errors import ConfigError
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.options import learning, locations
from hone.progress import OnProgress, Progress, ignore
from hone.registry.versions import SCHEME, find, lineage
from hone.sources import SOURCES
from hone.sources.moments import dated, end_of
from hone.sources.source import Source

Slot = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Job:
    """One stage of one run: its configuration, the artifacts it uses by stage name, where it may write, its key.

    `slot` is entered while a training uses its device: who hands it in decides how many may at once.
    """

    config: RunConfig
    inputs: Mapping[str, Artifact]
    home: Home
    out: Path = field(default_factory=Path)
    on_progress: OnProgress = ignore
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    slot: Slot = nullcontext

    def path(self, stage: str) -> Path:
        """The directory of the artifact of an earlier stage."""
        return self.inputs[stage].path

    def base(self) -> BaseModel:
        """The base model, on this machine."""
        model = self.config.model
        if model.scratch:
            path = self.path("base") / scratch.FOLDER
            return BaseModel(f"{model.scratch.architecture} from scratch", path, "", model.licence or "unknown")
        return locate(
            model.base,
            model.revision,
            model.licence,
            tracking_uri=self.home.tracking_uri,
            downloads=self.home.downloads,
            ignore_code=model.ignore_code,
            trust_code=model.trust_code,
        )


@dataclass(frozen=True)
class Stage:
    """What decides a stage's output: parts of the config, inputs, code, libraries; and the function that makes it.

    `keyed` are the stages whose artifacts it uses, `needs_base` says whether it also uses the base model, which is an
    artifact where it is made `when` the config says so. `untrue` says why an artifact no longer tells the truth about
    what lies outside the store, '' if it does.
    """

    make: Callable[[Job], Product]
    decides: Callable[[RunConfig], dict[str, Any]]
    code: Callable[[RunConfig], list[str]]
    libraries: Callable[[RunConfig], list[str]]
    keyed: tuple[str, ...] = ()
    needs_base: bool = False
    when: Callable[[RunConfig], bool] = lambda _: True
    files: tuple[str, ...] = ()
    outside: Callable[[Job], dict[str, str]] = lambda _: {}
    untrue: Callable[[Artifact], str] = lambda _: ""
    resumable: bool = False


def pinned(config: RunConfig, home: Home) -> RunConfig:
    """The configuration with a model version's number in place of its alias, which may move while the line runs."""
    base = config.model.base
    if not base.startswith(SCHEME):
        return config
    model = config.model.model_copy(update={"base": find(home.tracking_uri, base).uri})
    return config.model_copy(update={"model": model})


def _build(table: Mapping[str, Any], part: Part) -> Any:
    return table[part.kind](**part.options())


def _module(table: Mapping[str, Any], part: Part) -> str:
    return str(table[part.kind].__module__)


def _libraries(table: Mapping[str, Any], part: Part) -> list[str]:
    return list(getattr(table[part.kind], "libraries", ()))


def _objective_of_data(config: RunConfig) -> dict[str, Any]:
    """What of the objective decides the rows: not how they are learned from."""
    given = config.objective.model_dump()
    return {name: value for name, value in given.items() if name not in learning(OBJECTIVES[config.objective.kind])}


def _base_digest(job: Job) -> dict[str, str]:
    return {"base model": job.base().digest(job.home.store.memo.digest)}


# ingest


def _ingest_decides(config: RunConfig) -> dict[str, Any]:
    given = config.ingest
    # The moment decides which rows are taken where they say when they came; else what the source holds decides.
    timed = {"time": given.time, "as_of": given.as_of.isoformat()} if given.as_of and given.time else {}
    section = given.model_dump(exclude={"time", "as_of"}) | timed
    section["source"] = {
        name: value
        for name, value in section["source"].items()
        if name not in locations(SOURCES[config.ingest.source.kind])
    }
    return {"ingest": section, "objective": _objective_of_data(config)}


def source_of(config: RunConfig) -> Source:
    """The source of the rows, as of the configured date."""
    part = config.ingest.source
    return SOURCES[part.kind](**dated(part.options(), config.ingest.as_of))


def _source_fingerprint(job: Job) -> dict[str, str]:
    return {"data": source_of(job.config).fingerprint(job.home.store.memo.digest)}


def _ingest(job: Job) -> Product:
    from hone.sources.ingest import ingest

    section = job.config.ingest
    return ingest(
        source_of(job.config),
        job.out,
        columns=OBJECTIVES[job.config.objective.kind].columns,
        shape=_build(OBJECTIVES, job.config.objective).shape,
        objective=job.config.objective.kind,
        rename=section.columns,
        keep=section.keep,
        max_refused=section.max_refused,
        time=section.time,
        until=end_of(section.as_of) if section.as_of and section.time else None,
        on_progress=job.on_progress,
    )


# curate


def _curate(job: Job) -> Product:
    from hone.curation.curate import curate

    section = job.config.curation
    return curate(
        job.path("ingest") / "rows.parquet",
        job.out,
        steps=[(step.kind, _build(STEPS, step)) for step in section.steps],
        fields=_build(OBJECTIVES, job.config.objective),
        valid=section.split.valid,
        test=section.split.test,
        seed=section.split.seed,
        near_duplicate=section.split.near_duplicate,
        on_progress=job.on_progress,
    )


# base


def _make_base(job: Job) -> Product:
    return scratch.make_base(
        job.path("curate"),
        job.out,
        objective=_build(OBJECTIVES, job.config.objective),
        **job.config.model.model_dump()["scratch"],
        on_progress=job.on_progress,
    )


# validate


def _suite_digest(job: Job) -> dict[str, str]:
    suite = job.config.validation.suite
    if suite and not Path(suite).is_file():
        raise ConfigError("there is no such file", where=f"validation.suite {suite}", fix="Name a YAML file, or ''.")
    return _base_digest(job) | ({"suite": file_digest(Path(suite))} if suite else {})


def _validation_decides(config: RunConfig) -> dict[str, Any]:
    return {
        "validation": config.validation.model_dump(exclude={"suite"}),
        "objective": _objective_of_data(config),
        "curation": {"split": {"near_duplicate": config.curation.split.near_duplicate}},
    }


def _validate(job: Job) -> Product:
    from hone.validation.validate import validate

    return validate(
        job.path("curate"),
        job.out,
        base=job.base().path,
        objective=_build(OBJECTIVES, job.config.objective),
        near_duplicate=job.config.curation.split.near_duplicate,
        settings=job.config.validation.model_dump(),
        docs_on_failure=job.home.root / "data-docs" / job.config.name,
        on_progress=job.on_progress,
    )


# tokenize


def _tokenize(job: Job) -> Product:
    from hone.tokenization import tokenize

    section = job.config.tokenization
    return tokenize(
        job.path("validate"),
        job.out,
        base=job.base().path,
        objective=_build(OBJECTIVES, job.config.objective),
        max_length=section.max_length,
        max_truncated=section.max_truncated,
        max_dropped=section.max_dropped,
        on_progress=job.on_progress,
    )


def _tokenize_outside(job: Job) -> dict[str, str]:
    files = _build(OBJECTIVES, job.config.objective).files()
    for file in files:
        if not file.is_file():
            raise ConfigError("there is no such file", where=f"objective, {file}", fix="Mend its path.")
    return _base_digest(job) | {str(file): file_digest(file) for file in files}


# train


def _train(job: Job) -> Product:
    from hone.registry import log
    from hone.training.launch import train

    config = job.config
    with job.slot(), log.training_run(**_training_run(job, job.key)) as run:

        def on_event(event: dict[str, Any]) -> None:
            run.hear(event)
            if event["type"] == "started":
                steps["total"] = event["steps"]
            if event["type"] == "step":
                job.on_progress(Progress(event["step"], steps["total"], "steps", figures={"loss": event["loss"]}))

        steps = {"total": 0}
        product = train(
            job.path("tokenize"),
            job.out,
            base=job.base().path,
            objective=(config.objective.kind, config.objective.options()),
            method=(config.method.kind, config.method.options()),
            settings=config.training.model_dump(),
            on_event=on_event,
        )
        return replace(product, facts=product.facts | {"mlflow": {"run_id": run.run_id}})


# evaluate


def _evaluate(job: Job) -> Product:
    from hone.evaluation.evaluate import evaluate

    section = job.config.evaluation
    return evaluate(
        job.path("train"),
        job.path("tokenize"),
        job.path("validate"),
        job.out,
        base=job.base().path,
        objective=_build(OBJECTIVES, job.config.objective),
        method=_build(METHODS, job.config.method),
        max_length=job.config.tokenization.max_length,
        **section.model_dump(),
        on_progress=job.on_progress,
    )


# register


def _register(job: Job) -> Product:
    from hone.evaluation.report import render
    from hone.registry import log
    from hone.registry.register import register

    config = job.config
    ancestors = lineage(job.home.tracking_uri, config.model.base)
    with log.training_run(**_training_run(job, job.inputs["train"].key)) as run:
        return register(
            job.out,
            artifacts=job.inputs,
            report=render(config.name, job.inputs, run.links() | _data_docs(job), ancestors),
            base=job.base(),
            objective=_build(OBJECTIVES, config.objective),
            method=_build(METHODS, config.method),
            tracking_uri=job.home.tracking_uri,
            run_id=run.run_id,
            model_name=config.registration.model or config.name,
            alias=config.registration.alias,
            config=dump(config),
            tags=_git_commit() | dict(job.tags),
            on_progress=job.on_progress,
        )


def _data_docs(job: Job) -> dict[str, str]:
    checked = job.inputs["validate"]
    return {"Data Docs": (checked.path / checked.facts()["data_docs"]).as_uri()}


def _unregistered(artifact: Artifact) -> str:
    from hone.registry.service import has_version

    known = artifact.facts()
    if has_version(known["tracking_uri"], known["model"], known["version"]):
        return ""
    return f"version {known['version']} of {known['model']} is no longer in MLflow"


def _git_commit() -> dict[str, str]:
    """The commit of the repository that the run was started in, `-dirty` where files were changed since."""
    git = ("git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {}
    return {"hone.git_commit": found.stdout.strip()}


def _training_run(job: Job, key: str) -> dict[str, Any]:
    """What names the MLflow run of a training, and is told to it."""
    config = job.config
    return {
        "tracking_uri": job.home.tracking_uri,
        "artifact_root": job.home.artifact_root,
        "experiment": config.registration.experiment,
        "name": config.name,
        "key": key,
        "params": _flat(config.model_dump(mode="json", include={"model", "method", "training", "tokenization"})),
        "tags": dict(job.tags),
    }


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return flat


STAGES: dict[str, Stage] = {
    "ingest": Stage(
        make=_ingest,
        decides=_ingest_decides,
        code=lambda c: ["hone.sources.ingest", _module(SOURCES, c.ingest.source), _module(OBJECTIVES, c.objective)],
        libraries=lambda c: ["pyarrow", *_libraries(SOURCES, c.ingest.source)],
        outside=_source_fingerprint,
    ),
    "curate": Stage(
        make=_curate,
        decides=lambda c: {"curation": c.curation.model_dump(), "objective": _objective_of_data(c)},
        code=lambda c: [
            *("hone.curation.curate", _module(OBJECTIVES, c.objective)),
            *(_module(STEPS, step) for step in c.curation.steps),
        ],
        libraries=lambda c: ["pyarrow", *(name for step in c.curation.steps for name in _libraries(STEPS, step))],
        keyed=("ingest",),
    ),
    "base": Stage(
        make=_make_base,
        decides=lambda c: {"model": {"scratch": c.model.model_dump()["scratch"]}, "objective": _objective_of_data(c)},
        code=lambda c: ["hone.scratch", _module(OBJECTIVES, c.objective)],
        libraries=lambda _: ["pyarrow", "tokenizers", "torch", "transformers"],
        keyed=("curate",),
        when=lambda c: c.model.scratch is not None,
    ),
    "validate": Stage(
        make=_validate,
        decides=_validation_decides,
        code=lambda c: ["hone.validation.validate", _module(OBJECTIVES, c.objective)],
        libraries=lambda _: ["great-expectations", "pyarrow", "tokenizers"],
        keyed=("curate",),
        needs_base=True,
        outside=_suite_digest,
    ),
    "tokenize": Stage(
        make=_tokenize,
        decides=lambda c: {"tokenization": c.tokenization.model_dump(), "objective": _objective_of_data(c)},
        code=lambda c: ["hone.tokenization", _module(OBJECTIVES, c.objective)],
        libraries=lambda _: ["pyarrow", "tokenizers", "transformers"],
        keyed=("validate",),
        needs_base=True,
        outside=_tokenize_outside,
    ),
    "train": Stage(
        make=_train,
        decides=lambda c: c.model_dump(include={"objective", "method", "training"}),
        code=lambda c: [
            *("hone.training.launch", "hone.training.loop"),
            *(_module(OBJECTIVES, c.objective), _module(METHODS, c.method)),
        ],
        libraries=lambda c: ["torch", "transformers", *_libraries(METHODS, c.method)],
        keyed=("tokenize",),
        needs_base=True,
        outside=_base_digest,
        resumable=True,
    ),
    "evaluate": Stage(
        make=_evaluate,
        decides=lambda c: c.model_dump(
            include={"objective": True, "method": True, "evaluation": True, "tokenization": {"max_length"}}
        ),
        code=lambda c: [
            "hone.evaluation.evaluate",
            _module(OBJECTIVES, c.objective),
            _module(METHODS, c.method),
        ],
        libraries=lambda _: ["numpy", "scikit-learn", "torch", "transformers"],
        keyed=("train", "tokenize", "validate"),
        needs_base=True,
        outside=_base_digest,
    ),
    "register": Stage(
        make=_register,
        decides=lambda c: c.model_dump(
            include=dict.fromkeys(("name", "registration", "model", "objective", "method"), True)
            | {"tokenization": {"max_length"}}
        ),
        code=lambda c: [
            *("hone.registry.register", "hone.evaluation.report", "hone.methods.adapters"),
            _module(OBJECTIVES, c.objective),
        ],
        libraries=lambda _: ["mlflow"],
        keyed=("train", "evaluate"),
        needs_base=True,
        files=(
            *("evaluation/report.html", "evaluation/report_parts.html", "evaluation/report.css"),
            *("evaluation/report.js", "registry/card.md", "registry/served.py"),
        ),
        outside=lambda job: {"tracking server": job.home.tracking_uri},
        untrue=_unregistered,
    ),
}
