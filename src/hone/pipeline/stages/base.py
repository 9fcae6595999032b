"""base: makes a base model from scratch if the configuration asks for one."""

from __future__ import annotations

from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, get_module, list_data_options
from hone.pretraining import scratch
from hone.store.artifact import Product


def _make(job: Job) -> Product:
    return scratch.make_base(
        job.path("curate"),
        job.out,
        objective=build_part(OBJECTIVES, job.config.objective),
        **job.config.model.model_dump()["scratch"],
        on_progress=job.on_progress,
    )


BASE = Stage(
    make=_make,
    config=lambda c: {"model": {"scratch": c.model.model_dump()["scratch"]}, "objective": list_data_options(c)},
    code=lambda c: ["hone.pretraining.scratch", get_module(OBJECTIVES, c.objective)],
    libraries=lambda _: ["numpy", "pyarrow", "tokenizers", "torch", "transformers"],
    inputs=("curate",),
    applies=lambda c: c.model.scratch is not None,
)
