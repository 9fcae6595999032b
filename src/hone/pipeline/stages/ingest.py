"""ingest: reads the rows of the source in the objective's columns."""

from __future__ import annotations

from typing import Any

from hone.config.sections import RunConfig
from hone.objectives import OBJECTIVES
from hone.parts.moments import fill_as_of, last_moment
from hone.parts.options import location_options
from hone.pipeline.stage import Job, Stage, build_part, get_module, list_counts, list_data_options, list_libraries
from hone.sources import SOURCES
from hone.sources.source import Source
from hone.store.artifact import Artifact, Product


def _config(config: RunConfig) -> dict[str, Any]:
    section = config.ingest
    # `as_of` selects rows only if they have a time column; otherwise the source's fingerprint covers it.
    time_options = {"time": section.time, "as_of": section.as_of.isoformat()} if section.as_of and section.time else {}
    options = section.model_dump(exclude={"time", "as_of"}) | time_options
    options["source"] = {
        name: value
        for name, value in options["source"].items()
        if name not in location_options(SOURCES[section.source.kind])
    }
    return {"ingest": options, "objective": list_data_options(config)}


def _source(config: RunConfig) -> Source:
    """The configured source, as of the configured date."""
    part = config.ingest.source
    source: Source = SOURCES[part.kind](**fill_as_of(part.options(), config.ingest.as_of))
    return source


def _fingerprint(job: Job) -> dict[str, str]:
    return {"data": _source(job.config).fingerprint(job.home.store.memo.digest)}


def _make(job: Job) -> Product:
    from hone.sources.ingest import ingest

    section, objective = job.config.ingest, build_part(OBJECTIVES, job.config.objective)
    reader = objective.start_reading()
    return ingest(
        _source(job.config),
        job.out,
        columns=objective.columns,
        forms=objective.form_columns,
        shape=reader.read,
        finish=reader.finish,
        objective=job.config.objective.kind,
        rename=section.columns,
        keep=section.keep,
        max_refused=section.max_refused,
        time=section.time,
        split_column=section.source.options().get("split_column", ""),
        until=last_moment(section.as_of) if section.as_of and section.time else None,
        on_progress=job.on_progress,
    )


def _describe(artifact: Artifact) -> str:
    facts = artifact.facts()
    parts = [f"{facts['read']:,} rows read, {artifact.rows:,} kept"]
    if facts["refused"]:
        parts.append(f"{facts['refused']:,} refused ({list_counts(facts['reasons'])})")
    if skipped := facts.get("skipped"):
        parts.append(f"left out: {list_counts(skipped)}")
    return "; ".join(parts)


INGEST = Stage(
    make=_make,
    describe=_describe,
    config=_config,
    code=lambda c: ["hone.sources.ingest", get_module(SOURCES, c.ingest.source), get_module(OBJECTIVES, c.objective)],
    libraries=lambda c: ["pyarrow", *list_libraries(SOURCES, c.ingest.source)],
    external_digests=_fingerprint,
)
