"""ingest: the rows of the source, as the objective has them."""

from __future__ import annotations

from typing import Any

from hone.config.sections import RunConfig
from hone.objectives import OBJECTIVES
from hone.parts.moments import fill_as_of, last_moment
from hone.parts.options import location_options
from hone.pipeline.stage import Job, Stage, build_part, data_options, libraries_of, module_of
from hone.sources import SOURCES
from hone.sources.source import Source
from hone.store.artifact import Product


def _config(config: RunConfig) -> dict[str, Any]:
    section = config.ingest
    # The moment decides which rows are taken where they say when they came; else what the source holds decides.
    timed = {"time": section.time, "as_of": section.as_of.isoformat()} if section.as_of and section.time else {}
    options = section.model_dump(exclude={"time", "as_of"}) | timed
    options["source"] = {
        name: value
        for name, value in options["source"].items()
        if name not in location_options(SOURCES[section.source.kind])
    }
    return {"ingest": options, "objective": data_options(config)}


def _source(config: RunConfig) -> Source:
    """The source of the rows, as of the configured date."""
    part = config.ingest.source
    source: Source = SOURCES[part.kind](**fill_as_of(part.options(), config.ingest.as_of))
    return source


def _fingerprint(job: Job) -> dict[str, str]:
    return {"data": _source(job.config).fingerprint(job.home.store.memo.digest)}


def _make(job: Job) -> Product:
    from hone.sources.ingest import ingest

    section = job.config.ingest
    return ingest(
        _source(job.config),
        job.out,
        columns=OBJECTIVES[job.config.objective.kind].columns,
        shape=build_part(OBJECTIVES, job.config.objective).shape,
        objective=job.config.objective.kind,
        rename=section.columns,
        keep=section.keep,
        max_refused=section.max_refused,
        time=section.time,
        until=last_moment(section.as_of) if section.as_of and section.time else None,
        on_progress=job.on_progress,
    )


INGEST = Stage(
    make=_make,
    config=_config,
    code=lambda c: ["hone.sources.ingest", module_of(SOURCES, c.ingest.source), module_of(OBJECTIVES, c.objective)],
    libraries=lambda c: ["pyarrow", *libraries_of(SOURCES, c.ingest.source)],
    outside=_fingerprint,
)
