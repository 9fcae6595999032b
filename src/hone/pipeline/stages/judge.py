"""judge: has a model behind an API compare the trained model's answers with others, two by two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone.config.judge import Judge
from hone.config.sections import RunConfig
from hone.errors import DataError
from hone.evaluation.report import figures
from hone.objectives import OBJECTIVES
from hone.parts.variables import expand
from hone.pipeline.stage import Job, Stage, build_part, get_module, list_data_options, list_libraries
from hone.pipeline.stages.rivals import build_api_engine, digest_template, list_prompting
from hone.sources.files import Files
from hone.store.artifact import Artifact, Product


def _get_section(config: RunConfig) -> Judge:
    section = config.evaluation.judge
    assert section  # `applies`
    return section


def _make(job: Job) -> Product:
    from hone.evaluation.rivals.asking import Terms
    from hone.evaluation.rivals.pairwise import DEFAULT, NAMES, judge_answers
    from hone.evaluation.rivals.prompts import Template

    section = _get_section(job.config)
    return judge_answers(
        job.path("evaluate"),
        job.path("validate"),
        job.out,
        objective=build_part(OBJECTIVES, job.config.objective),
        engine=build_api_engine(section, section.model, section.max_tokens),
        template=Template(_template(section) or DEFAULT, NAMES, NAMES),
        terms=Terms(job.home.answers, section.prices, section.max_cost),
        against=section.against,
        labelled=_read_labelled(section),
        limit=section.limit,
        seed=section.seed,
        confidence=job.config.evaluation.confidence,
        description={"model": section.model, "api": section.api},
        on_progress=job.on_progress,
    )


def _template(section: Judge) -> Path | None:
    return Path(expand(section.template)) if section.template else None


def _source(section: Judge) -> Files:
    return Files(paths=[section.labelled])


def _read_labelled(section: Judge) -> list[dict[str, Any]]:
    """The rows of the file of labelled pairs; raises DataError for one that cannot be read."""
    rows = []
    for row in _source(section).rows() if section.labelled else ():
        if row.refused:
            raise DataError(row.refused, where=row.where, fix="Correct the row.")
        rows.append(row.values)
    return rows


def _digest_inputs(job: Job) -> dict[str, str]:
    section, digests = job.config.evaluation.judge, {}
    if section is None:
        return {}
    if path := _template(section):
        digests["template"] = digest_template(path)
    if section.labelled:
        digests["labelled pairs"] = _source(section).fingerprint(job.home.store.memo.digest)
    return digests


def _describe(artifact: Artifact) -> str:
    return (
        "; ".join(
            f"against {name} {result['wins']} won, {result['ties']} tied, {result['losses']} lost"
            for name, result in artifact.facts()["judge"]["opponents"].items()
        )
        + f" by {figures.counted(artifact.facts()['judge']['verdicts'], 'verdict')}"
    )


JUDGE = Stage(
    make=_make,
    describe=_describe,
    config=lambda c: {
        "judge": c.evaluation.judge.list_deciding() if c.evaluation.judge else None,
        "objective": list_data_options(c),
        "confidence": c.evaluation.confidence,
    },
    code=lambda c: [
        *("hone.evaluation.rivals.pairwise", "hone.evaluation.rivals.client", "hone.sources.files"),
        *(get_module(OBJECTIVES, c.objective), *list_prompting(c)),
    ],
    libraries=lambda c: [
        *("fsspec", "httpx", "jinja2", "numpy", "pyarrow", "scipy", "torch", "transformers", "zstandard"),
        *(list_libraries(OBJECTIVES, c.objective) + list(Files.libraries)),
    ],
    inputs=("validate", "evaluate"),
    applies=lambda c: c.evaluation.judge is not None,
    files=("evaluation/rivals/judge.jinja",),
    external_digests=_digest_inputs,
)
