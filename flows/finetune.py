"""The fine-tuning flow: from raw text to a registered model version."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.changes import Change, Settings, name_run, resolve_changed
from flows.choice import Choice
from hone.config.sections import RunConfig
from hone.errors import ValidationFailed
from hone.pipeline.summary import summarize_version
from hone.store.artifact import Artifact
from tasks.base import make_base
from tasks.benchmarks import run_base_benchmarks, run_benchmarks
from tasks.curate import curate
from tasks.evaluate import evaluate
from tasks.forms import update_forms
from tasks.ingest import ingest
from tasks.judge import judge
from tasks.register import register
from tasks.rivals import ask_rivals
from tasks.runtime.worker import is_deployed
from tasks.stage import pin_config
from tasks.tokenize import tokenize
from tasks.train import train
from tasks.validate import build_stopped_state, validate


def _run_name() -> str:
    return name_run("finetune", flow_run.parameters)


@flow(name="finetune", flow_run_name=_run_name, persist_result=False)
def finetune(
    config: Choice,
    settings: Settings = Settings(),  # noqa: B008 - Prefect copies parameters
    changes: list[Change] = [],  # noqa: B006
) -> State[Artifact]:
    """Fine-tune a base model on curated rows, compare it with baselines, and register it as a candidate.

    The run ends as `Completed` with the version and its main figure, or as `Validation stopped`; its result is the
    artifact of the registered version.

    Args:
        config: A file in conf/, a registered version, or a whole configuration.
        settings: What is changed most often. An empty field keeps the configuration's value.
        changes: Changes of any other field, as in the terminal, such as training.epochs=5.
    """
    try:
        registered, evaluated = _run_line(pin_config(resolve_changed(config, settings, changes)))
    except ValidationFailed as fault:
        return build_stopped_state(fault)
    if is_deployed() and registered.facts()["version"] == "1":
        update_forms(return_state=True)  # the new model is offered; that it is not yet fails no run
    return Completed(message=summarize_version(registered, evaluated), data=registered)


def _run_line(config: RunConfig) -> tuple[Artifact, Artifact]:
    """The artifacts of register and evaluate."""
    rows = ingest(config)
    return finish_line(config, rows, curate(config, rows))


def finish_line(
    config: RunConfig, rows: Artifact, splits: Artifact, tried: Artifact | None = None
) -> tuple[Artifact, Artifact]:
    """The artifacts of register and evaluate, from those of ingest and curate, and of the sweep that chose values."""
    base = make_base(config, splits) if config.model.scratch else None
    validated = validate(config, splits, base)
    tokens = tokenize(config, validated, base)
    answers = ask_rivals(config, validated, tokens, base) if config.evaluation.rivals else None
    base_benchmarks = run_base_benchmarks(config, base) if config.evaluation.benchmarks else None
    model = train(config, tokens, base)
    benchmarks = run_benchmarks(config, model, base) if config.evaluation.benchmarks else None
    evaluation = evaluate(config, model, tokens, validated, base, answers, benchmarks, base_benchmarks)
    judged = judge(config, validated, evaluation) if config.evaluation.judge else None
    return register(config, rows, splits, validated, tokens, model, evaluation, base, tried, judged), evaluation
