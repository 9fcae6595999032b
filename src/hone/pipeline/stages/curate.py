"""curate: cleans, deduplicates and splits the rows."""

from __future__ import annotations

from hone.curation import STEPS
from hone.curation.account import describe_groups, list_emptied
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, get_module, list_counts, list_data_options, list_libraries
from hone.store import layout
from hone.store.artifact import Artifact, Product


def _make(job: Job) -> Product:
    from hone.curation.account import Limits
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
        limits=Limits(
            max_dropped=section.max_dropped,
            stop=section.on_excess == "stop",
            curate_held_out=section.held_out == "curate",
        ),
        on_progress=job.on_progress,
    )


def _describe(artifact: Artifact) -> str:
    facts = artifact.facts()
    read = facts["funnel"][0]["before"] if facts["funnel"] else artifact.rows
    dropped = {step["step"]: sum(step["dropped"].values()) for step in facts["funnel"]}
    dropped = {step: count for step, count in dropped.items() if count}
    result = f"{artifact.rows:,} of {read:,} rows kept: {list_counts(facts['splits'])}"
    return result + (f"; dropped by {list_counts(dropped)}" if dropped else "")


def _list_warnings(artifact: Artifact) -> list[str]:
    facts = artifact.facts()
    funnel, groups = facts["funnel"], facts.get("groups", {})
    divided = [f"split: {describe_groups(groups)}"] if groups.get("divided") else []
    return [step["warning"] for step in funnel if "warning" in step] + list_emptied(facts) + divided


CURATE = Stage(
    make=_make,
    describe=_describe,
    list_warnings=_list_warnings,
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
