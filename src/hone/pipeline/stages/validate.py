"""validate: checks the splits against expectations; bad data stops the run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone.config.sections import RunConfig
from hone.errors import ConfigError
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, compute_base_digest, get_module, list_data_options
from hone.store.artifact import Artifact, Product
from hone.store.digests import file_digest


def _config(config: RunConfig) -> dict[str, Any]:
    return {
        "validation": config.validation.model_dump(exclude={"suite"}),
        "objective": list_data_options(config),
        "curation": {"split": {"near_duplicate": config.curation.split.near_duplicate}},
    }


def _outside(job: Job) -> dict[str, str]:
    suite = job.config.validation.suite
    if suite and not Path(suite).is_file():
        fix = "Name a YAML file, or leave it empty."
        raise ConfigError("there is no such file", where=f"validation.suite {suite}", fix=fix)
    return compute_base_digest(job) | ({"suite": file_digest(Path(suite))} if suite else {})


def _make(job: Job) -> Product:
    from hone.curation.account import list_emptied
    from hone.validation.validate import validate

    return validate(
        job.path("curate"),
        job.out,
        base=job.base().path,
        objective=build_part(OBJECTIVES, job.config.objective),
        near_duplicate=job.config.curation.split.near_duplicate,
        settings=job.config.validation.model_dump(),
        emptied=list_emptied(job.inputs["curate"].facts()),
        docs_on_failure=job.home.data_docs / job.config.name,
        on_progress=job.on_progress,
    )


def _describe(artifact: Artifact) -> str:
    facts = artifact.facts()
    successes = [finding["success"] for finding in facts["expectations"]]
    aside = f"; {facts['quarantined']:,} rows set aside" if facts["quarantined"] else ""
    return f"{sum(successes):,} of {len(successes):,} expectations hold for {artifact.rows:,} rows{aside}"


def _list_warnings(artifact: Artifact) -> list[str]:
    failed = [finding for finding in artifact.facts()["expectations"] if not finding["success"]]
    return ["does not hold: {split}: {expectation}({column}): {observed}".format(**finding) for finding in failed]


VALIDATE = Stage(
    make=_make,
    describe=_describe,
    list_warnings=_list_warnings,
    config=_config,
    code=lambda c: ["hone.validation.validate", "hone.validation.escaping", get_module(OBJECTIVES, c.objective)],
    libraries=lambda _: ["great-expectations", "numpy", "pandas", "pyarrow", "tokenizers"],
    inputs=("curate",),
    needs_base=True,
    external_digests=_outside,
)
