"""evaluate: compares the model and the baselines on the test split."""

from __future__ import annotations

from hone.evaluation.report.headline import describe_verdict
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, compute_base_digest, get_module, list_libraries
from hone.progress import Progress
from hone.store import layout
from hone.store.artifact import Artifact, Product


def _make(job: Job) -> Product:
    from hone.evaluation.judging.evaluate import evaluate

    section = job.config.evaluation
    job.on_progress(Progress(0, 0, note="loading the model"))
    return evaluate(
        job.path("train"),
        job.path("tokenize"),
        job.path("validate"),
        job.out,
        base=job.base().path,
        objective=build_part(OBJECTIVES, job.config.objective),
        method=build_part(METHODS, job.config.method),
        max_length=job.config.tokenization.max_length,
        **section.model_dump(),
        on_progress=job.on_progress,
    )


def _describe(artifact: Artifact) -> str:
    return describe_verdict(artifact.read_json(layout.METRICS))


EVALUATE = Stage(
    make=_make,
    describe=_describe,
    config=lambda c: c.model_dump(
        include={"objective": True, "method": True, "evaluation": True, "tokenization": {"max_length"}}
    ),
    code=lambda c: [
        "hone.evaluation.judging.evaluate",
        get_module(OBJECTIVES, c.objective),
        get_module(METHODS, c.method),
    ],
    libraries=lambda c: [
        *("numpy", "pyarrow", "scikit-learn", "scipy", "torch", "transformers"),
        *(list_libraries(OBJECTIVES, c.objective) + list_libraries(METHODS, c.method)),
    ],
    inputs=("train", "tokenize", "validate"),
    needs_base=True,
    external_digests=compute_base_digest,
)
