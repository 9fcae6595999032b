"""evaluate: compares the model and the baselines on the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hone.config.sections import RunConfig
from hone.evaluation.report.headline import describe_verdict
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, compute_base_digest, get_module, list_libraries
from hone.pipeline.stages.rivals import list_prompting
from hone.progress import Progress
from hone.store import layout
from hone.store.artifact import Artifact, Product
from hone.store.digests import file_digest

if TYPE_CHECKING:
    from hone.evaluation.judging.benchmarks import BenchmarkResults
    from hone.evaluation.judging.rivals import Answers


def _make(job: Job) -> Product:
    from hone.evaluation.judging.evaluate import evaluate
    from hone.evaluation.judging.lexicon_file import load_lexicon

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
        **section.model_dump(exclude={"rivals", "hour_price", "benchmarks", "flips", "judge"}),
        lexicon=load_lexicon(section.flips) if section.flips else None,
        rivals=_collect_answers(job),
        benchmarks=_collect_benchmarks(job),
        on_progress=job.on_progress,
    )


def _collect_answers(job: Job) -> Answers | None:
    """The rivals' answers, with what their tokens and the training cost; None if none were asked."""
    from hone.evaluation.judging.rivals import Answers

    section = job.config.evaluation
    if "rivals" not in job.inputs:
        return None
    prices = {rival.name: rival.prices for rival in section.rivals if rival.prices}
    return Answers(job.path("rivals"), prices, section.hour_price, job.inputs["train"].facts()["seconds"])


def _collect_benchmarks(job: Job) -> BenchmarkResults | None:
    """The folders with the results of both models; None if no tasks were run."""
    from hone.evaluation.judging.benchmarks import BenchmarkResults

    if "benchmarks" not in job.inputs:
        return None
    return BenchmarkResults(job.path("benchmarks"), job.path("benchmarks-base"))


def _describe(artifact: Artifact) -> str:
    return describe_verdict(artifact.read_json(layout.METRICS))


def _config(config: RunConfig) -> dict[str, Any]:
    """What decides the result. Of the rivals only their prices: their answers are an input, as are benchmarks."""
    sections = config.model_dump(
        include={"objective": True, "method": True, "evaluation": True, "tokenization": {"max_length"}}
    )
    del sections["evaluation"]["benchmarks"], sections["evaluation"]["judge"]
    rivals = config.evaluation.rivals
    del sections["evaluation"]["flips"]  # its content has a digest
    sections["evaluation"]["rivals"] = {rival.name: rival.price.model_dump() for rival in rivals if rival.price}
    return sections


def _digest_inputs(job: Job) -> dict[str, str]:
    """The digests of the base model and of the lexicon, if there is one."""
    from hone.evaluation.judging.lexicon_file import find_lexicon

    flips = job.config.evaluation.flips
    return compute_base_digest(job) | ({"lexicon": file_digest(find_lexicon(flips))} if flips else {})


EVALUATE = Stage(
    make=_make,
    describe=_describe,
    config=_config,
    code=lambda c: [
        "hone.evaluation.judging.evaluate",
        *(["hone.evaluation.judging.lexicon_file"] if c.evaluation.flips else []),
        get_module(OBJECTIVES, c.objective),
        get_module(METHODS, c.method),
        *(list_prompting(c) if c.evaluation.rivals else []),
    ],
    libraries=lambda c: [
        *("numpy", "pyarrow", "scikit-learn", "scipy", "torch", "transformers"),
        *(["pyyaml"] if c.evaluation.flips else []),
        *(list_libraries(OBJECTIVES, c.objective) + list_libraries(METHODS, c.method)),
    ],
    inputs=("train", "tokenize", "validate"),
    optional_inputs=("rivals", "benchmarks", "benchmarks-base"),
    needs_base=True,
    external_digests=_digest_inputs,
)
