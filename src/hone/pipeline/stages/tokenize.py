"""tokenize: encodes the splits and records which rows were cut."""

from __future__ import annotations

from hone.errors import ConfigError
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import (
    Job,
    Stage,
    build_part,
    compute_base_digest,
    get_module,
    list_counts,
    list_data_options,
    list_libraries,
)
from hone.store.artifact import Artifact, Product
from hone.store.digests import file_digest


def _outside(job: Job) -> dict[str, str]:
    files = build_part(OBJECTIVES, job.config.objective).option_files()
    for file in files:
        if not file.is_file():
            raise ConfigError("there is no such file", where=f"objective, {file}", fix="Correct its path.")
    return compute_base_digest(job) | {str(file): file_digest(file) for file in files}


def _make(job: Job) -> Product:
    from hone.tokenization.tokenize import tokenize

    section = job.config.tokenization
    return tokenize(
        job.path("validate"),
        job.out,
        base=job.base().path,
        objective=build_part(OBJECTIVES, job.config.objective),
        max_length=section.max_length,
        max_truncated=section.max_truncated,
        max_dropped=section.max_dropped,
        special_tokens=section.special_tokens,
        emptied=job.inputs["validate"].facts().get("emptied", []),
        on_progress=job.on_progress,
    )


def _describe(artifact: Artifact) -> str:
    splits = artifact.facts()["splits"]
    tokens = {split: account["tokens"] for split, account in splits.items()}
    truncated = sum(account["truncated_rows"] for account in splits.values())
    return f"{sum(tokens.values()):,} tokens: {list_counts(tokens)}; {truncated:,} rows truncated"


def _list_warnings(artifact: Artifact) -> list[str]:
    from hone.tokenization.tokenize import describe_unseen_labels

    facts = artifact.facts()
    return describe_unseen_labels(facts.get("unseen_labels", {}), facts.get("emptied", []))


TOKENIZE = Stage(
    make=_make,
    describe=_describe,
    list_warnings=_list_warnings,
    config=lambda c: {"tokenization": c.tokenization.model_dump(), "objective": list_data_options(c)},
    code=lambda c: ["hone.tokenization.tokenize", get_module(OBJECTIVES, c.objective)],
    libraries=lambda c: ["numpy", "pyarrow", "tokenizers", "transformers", *list_libraries(OBJECTIVES, c.objective)],
    inputs=("validate",),
    needs_base=True,
    external_digests=_outside,
)
