"""rivals: asks models that are prompted instead of trained the test rows. What was answered once is not asked again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.config.rivals import BASE, Rival
from hone.config.sections import RunConfig
from hone.errors import ConfigError, HoneError
from hone.models.locate import BaseModel, locate_base_model
from hone.objectives import OBJECTIVES
from hone.parts.moments import fill_as_of
from hone.parts.options import location_options
from hone.parts.variables import expand
from hone.pipeline.stage import Job, Stage, build_part, get_module, list_data_options, list_libraries
from hone.sources import SOURCES
from hone.sources.source import Source
from hone.store.artifact import Artifact, Product

if TYPE_CHECKING:
    from hone.config.api import ApiSection
    from hone.evaluation.rivals.answering import Contender
    from hone.evaluation.rivals.client import ApiEngine
    from hone.evaluation.rivals.completion import Engine


def _make(job: Job) -> Product:
    from hone.evaluation.rivals.answering import answer_rows

    return answer_rows(
        job.path("validate"),
        job.path("tokenize"),
        job.out,
        contenders=[_build_contender(rival, job) for rival in job.config.evaluation.rivals],
        objective=build_part(OBJECTIVES, job.config.objective),
        books=job.home.answers,
        on_progress=job.on_progress,
    )


def _build_contender(rival: Rival, job: Job) -> Contender:
    from hone.evaluation.rivals.answering import Contender, Library
    from hone.evaluation.rivals.prompts import DEFAULT, Template

    corpus = rival.corpus
    library = (
        Library(_source(rival, job).rows, corpus.text, corpus.words, corpus.overlap, corpus.passages, corpus.choose)
        if corpus
        else None
    )
    return Contender(
        name=rival.name,
        build_engine=partial(_build_api_engine, rival) if rival.api else partial(_build_local_engine, rival, job),
        template=Template(_template(rival) or DEFAULT),
        shots=rival.shots,
        choose=rival.choose,
        library=library,
        limit=rival.limit,
        seed=rival.seed,
        prices=rival.prices,
        max_cost=rival.max_cost,
        base=job.base().path if rival.uses_base else None,
        description={
            "model": (job.config.model.base or "from scratch") if rival.model == BASE else rival.model,
            "api": rival.api,
            "shots": rival.shots,
            "choose": rival.choose,
            "passages": corpus.passages if corpus else 0,
        },
    )


def build_api_engine(section: ApiSection, model: str, max_tokens: int) -> ApiEngine:
    """What asks the `model` behind the section's API. Raises ConfigError for a missing key."""
    from hone.evaluation.rivals.client import ApiEngine, Patience
    from hone.evaluation.rivals.wire import Api

    patience = Patience(section.attempts, stall_seconds=section.timeout, deadline_seconds=section.timeout)
    return ApiEngine(
        cast(Api, section.api),
        section.address,
        model,
        max_tokens=max_tokens,
        key_variable=section.key,
        parallel=section.parallel,
        patience=patience,
    )


def _build_api_engine(rival: Rival, _choices: Sequence[str], _stops: Sequence[str]) -> Engine:
    return build_api_engine(rival, rival.model, rival.max_tokens)


def _build_local_engine(rival: Rival, job: Job, choices: Sequence[str], stops: Sequence[str]) -> Engine:
    from hone.evaluation.rivals.local import LocalEngine

    model = _locate(rival, job)
    digest = model.compute_digest(job.home.store.memo.digest)
    return LocalEngine(model.path, digest, rival.max_tokens, choices, stops)


def _locate(rival: Rival, job: Job) -> BaseModel:
    """The directory of a local rival's model."""
    if rival.model == BASE:
        return job.base()
    with _about(rival, "model"):
        return locate_base_model(rival.model, tracking_uri=job.home.tracking_uri, downloads=job.home.downloads)


@contextmanager
def _about(rival: Rival, field: str) -> Iterator[None]:
    """Within the block, errors are about the rival's field: what they say of `model.base` or `ingest` is not meant."""
    try:
        yield
    except HoneError as fault:
        fault.what = f"{fault.where}: {fault.what}" if fault.where else fault.what
        fault.where, fault.fix = f"evaluation.rivals {rival.name}, {field}", f"Correct the rival's {field}."
        raise


def _source(rival: Rival, job: Job) -> Source:
    """The source of a rival's corpus, as of the configured date."""
    assert rival.corpus  # callers check
    part = rival.corpus.source
    source: Source = SOURCES[part.kind](**fill_as_of(part.options(), job.config.ingest.as_of))
    return source


def _template(rival: Rival) -> Path | None:
    return Path(expand(rival.template)) if rival.template else None


def _digest_inputs(job: Job) -> dict[str, str]:
    """The digests of the base model, if a rival uses it, of other local models, templates and corpora."""
    digests: dict[str, str] = {}
    memo = job.home.store.memo.digest
    for rival in job.config.evaluation.rivals:
        if rival.uses_base:
            digests["base model"] = job.base().compute_digest(memo)
        if not rival.api and rival.model != BASE:
            digests[f"model of {rival.name}"] = _locate(rival, job).compute_digest(memo)
        if path := _template(rival):
            digests[f"template of {rival.name}"] = digest_template(path)
        if rival.corpus:
            with _about(rival, "corpus"):
                digests[f"corpus of {rival.name}"] = _source(rival, job).fingerprint(memo)
    return digests


def digest_template(path: Path) -> str:
    """The digest of a template's file; raises ConfigError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as fault:
        raise ConfigError(
            f"cannot be read: {fault.strerror}", where=str(path), fix="Correct the rival's template."
        ) from None


def _list_deciding(rival: Rival) -> dict[str, Any]:
    """The fields that decide the answers; of a corpus not where it is, but what it contains, which has a digest."""
    fields = rival.list_deciding()
    if rival.corpus:
        corpus = rival.corpus.model_dump()
        locations = location_options(SOURCES[rival.corpus.source.kind])
        corpus["source"] = {name: value for name, value in corpus["source"].items() if name not in locations}
        fields["corpus"] = corpus
    return fields


def _describe(artifact: Artifact) -> str:
    rivals = [
        f"{name} {counts['answered']:,} rows ({counts['from_book']:,} answered before)"
        for name, counts in artifact.facts()["rivals"].items()
    ]
    return ", ".join(rivals)


def _list_warnings(artifact: Artifact) -> list[str]:
    counts_by_name = artifact.facts()["rivals"].items()
    stopped = [
        f"{name}: stopped at its maximum cost, after {counts['answered']:,} rows"
        for name, counts in counts_by_name
        if counts["stopped"]
    ]
    return [*stopped, *(note for _, counts in counts_by_name for note in counts["notes"])]


def _list_libraries(config: RunConfig) -> list[str]:
    rivals = config.evaluation.rivals
    sources = [rival.corpus.source for rival in rivals if rival.corpus]
    return [
        *("httpx", "jinja2", "numpy", "pyarrow", "scikit-learn", "scipy", "tokenizers", "torch", "transformers"),
        *list_libraries(OBJECTIVES, config.objective),
        *(library for source in sources for library in list_libraries(SOURCES, source)),
    ]


def list_prompting(config: RunConfig) -> list[str]:
    """The module with the objective's words, which no other module's imports lead to; empty for one without words."""
    prompting = build_part(OBJECTIVES, config.objective).prompting
    return [type(prompting).__module__] if prompting else []


def _list_modules(config: RunConfig) -> list[str]:
    """The modules that make the prompts, and those that answer: of local models, of models behind an API, or both."""
    engines = {
        "hone.evaluation.rivals.client" if rival.api else "hone.evaluation.rivals.local"
        for rival in config.evaluation.rivals
    }
    sources = [get_module(SOURCES, rival.corpus.source) for rival in config.evaluation.rivals if rival.corpus]
    return [
        *("hone.evaluation.rivals.answering", get_module(OBJECTIVES, config.objective)),
        *(sorted(engines) + sources + list_prompting(config)),
    ]


RIVALS = Stage(
    make=_make,
    describe=_describe,
    list_warnings=_list_warnings,
    config=lambda c: {
        "rivals": [_list_deciding(rival) for rival in c.evaluation.rivals],
        "objective": list_data_options(c),
    },
    code=_list_modules,
    libraries=_list_libraries,
    inputs=("validate", "tokenize"),
    needs_base=True,
    applies=lambda c: bool(c.evaluation.rivals),
    files=("evaluation/rivals/prompt.jinja",),
    external_digests=_digest_inputs,
)
