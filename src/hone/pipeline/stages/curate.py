"""curate: cleans, deduplicates and splits the rows."""

from __future__ import annotations

from hone.curation import STEPS
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, get_module, list_data_options, list_libraries
from hone.store import layout
from hone.store.artifact import Product


def _make(job: Job) -> Product:
    from hone.curation.curate import curate

    section = job.config.curation
    return curate(
        job.path("ingest") / layout.ROWS,
        job.out,
        steps=[(step.kind, build_part(STEPS, step)) for step in section.steps],
        fields=build_part(OBJECTIVES, job.config.objective),
        valid=section.split.valid,
        test=section.split.test,
        seed=section.split.seed,
        near_duplicate=section.split.near_duplicate,
        on_progress=job.on_progress,
    )


CURATE = Stage(
    make=_make,
    config=lambda c: {"curation": c.curation.model_dump(), "objective": list_data_options(c)},
    code=lambda c: [
        *("hone.curation.curate", get_module(OBJECTIVES, c.objective)),
        *(get_module(STEPS, step) for step in c.curation.steps),
    ],
    libraries=lambda c: [
        "numpy",
        "pyarrow",
        *(name for step in c.curation.steps for name in list_libraries(STEPS, step)),
    ],
    inputs=("ingest",),
)
