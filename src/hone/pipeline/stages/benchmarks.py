"""benchmarks, benchmarks-base: run lm-evaluation-harness on the fine-tuned model, and on its base model.

Two stages, so that the base model is not run again after each training: its results depend on it and on the tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.config.benchmarks import Benchmarks
from hone.config.sections import RunConfig
from hone.errors import ConfigError
from hone.evaluation.report import figures
from hone.methods import METHODS
from hone.methods.method import AdapterMethod
from hone.parts.variables import expand
from hone.pipeline.stage import Job, Stage, build_part, compute_base_digest, get_module
from hone.store.artifact import Artifact, Product
from hone.store.digests import digest_of

if TYPE_CHECKING:
    from hone.evaluation.benchmarks.harness import HarnessModel

WHERE = "evaluation.benchmarks.include"


def _make_base(job: Job) -> Product:
    from hone.evaluation.benchmarks.harness import HarnessModel

    return _run(job, HarnessModel(job.base().path))


def _make_model(job: Job) -> Product:
    """The model as it is served: the weights of its own, or an adapter that cannot be merged on its base model."""
    from hone.evaluation.benchmarks.harness import HarnessModel

    method, trained = build_part(METHODS, job.config.method), job.path("train")
    model = HarnessModel(trained / "model")
    if isinstance(method, AdapterMethod) and not method.can_merge:
        model = HarnessModel(job.base().path, trained / "adapter", trained / "model")
    return _run(job, model)


def _run(job: Job, model: HarnessModel) -> Product:
    from hone.evaluation.benchmarks.harness import run_benchmarks
    from hone.evaluation.judging.predict import best_device

    section = job.config.evaluation.benchmarks
    assert section  # the stage applies
    return run_benchmarks(
        model,
        job.out,
        tasks=section.tasks,
        include=_locate_tasks(section),
        limit=section.limit,
        device=str(best_device()),
    )


def _locate_tasks(section: Benchmarks | None) -> Path | None:
    """The directory of the user's own tasks; None without one. Raises ConfigError if it does not exist."""
    if section is None or not section.include:
        return None
    path = Path(expand(section.include))
    if not path.is_dir():
        raise ConfigError("there is no such directory", where=f"{WHERE}: {path}", fix="Correct the path.")
    return path


def _digest_tasks(job: Job) -> dict[str, str]:
    """The digest of all files in the directory of the user's tasks, by the name it has in reasons for a miss."""
    path = _locate_tasks(job.config.evaluation.benchmarks)
    if path is None:
        return {}
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.parent.name != "__pycache__")
    memo = job.home.store.memo.digest
    return {"benchmark tasks": digest_of({str(file.relative_to(path)): memo(file) for file in files})}


def _digest_inputs(job: Job) -> dict[str, str]:
    return compute_base_digest(job) | _digest_tasks(job)


def _config(config: RunConfig) -> dict[str, Any]:
    """What decides the result; of the user's tasks not where they are, but their files, which have a digest."""
    return config.model_dump(include={"evaluation": {"benchmarks": {"tasks", "limit"}}})


def _describe(artifact: Artifact) -> str:
    return ", ".join(f"{name} {figures.number(value)}" for name, value in artifact.facts()["figures"].items())


LIBRARIES = (
    *("accelerate", "datasets", "evaluate", "jinja2", "lm-eval", "numpy", "peft", "pyarrow", "tokenizers"),
    *("torch", "transformers"),
)

BENCHMARKS_BASE = Stage(
    make=_make_base,
    describe=_describe,
    config=_config,
    code=lambda _: ["hone.evaluation.benchmarks.harness", "hone.evaluation.benchmarks.child"],
    libraries=lambda _: list(LIBRARIES),
    needs_base=True,
    applies=lambda c: c.evaluation.benchmarks is not None,
    external_digests=_digest_inputs,
)

BENCHMARKS = Stage(
    make=_make_model,
    describe=_describe,
    config=lambda c: {**_config(c), "method": c.method.model_dump()},
    code=lambda c: [
        *("hone.evaluation.benchmarks.harness", "hone.evaluation.benchmarks.child"),
        get_module(METHODS, c.method),
    ],
    libraries=lambda _: list(LIBRARIES),
    inputs=("train",),
    needs_base=True,
    applies=lambda c: c.evaluation.benchmarks is not None,
    external_digests=_digest_inputs,
)
