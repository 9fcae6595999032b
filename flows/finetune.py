"""The fine-tuning flow: from raw text to a registered model version."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.changes import Change, Settings, list_changes
from flows.choice import Choice, config_name, resolve_config
from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.base import make_base
from tasks.curate import curate
from tasks.evaluate import evaluate
from tasks.ingest import ingest
from tasks.register import register
from tasks.stage import pin_config
from tasks.tokenize import tokenize
from tasks.train import train
from tasks.validate import validate


def _run_name() -> str:
    parameters = flow_run.parameters
    settings = parameters.get("settings") or {}
    name = settings.get("name") if isinstance(settings, dict) else settings.name
    return f"finetune {name or config_name(parameters['config'])}"


@flow(name="finetune", flow_run_name=_run_name, persist_result=False)
def finetune(config: Choice, settings: Settings = Settings(), changes: list[Change] = []) -> Artifact:  # noqa: B006, B008
    """Fine-tune a base model on curated rows, compare it with baselines, and register it as a candidate.

    Args:
        config: A file in conf/, or a whole configuration.
        settings: What is changed most often. An empty field keeps the configuration's value.
        changes: Changes of any other field, as in the terminal, such as training.epochs=5.
    """
    resolved = resolve_config(config)
    overrides = [*list_changes(settings, resolved), *changes]
    return _run_line(pin_config(resolve_config(config, overrides) if overrides else resolved))


def _run_line(config: RunConfig) -> Artifact:
    rows = ingest(config)
    splits = curate(config, rows)
    base = make_base(config, splits) if config.model.scratch else None
    validated = validate(config, splits, base)
    tokens = tokenize(config, validated, base)
    model = train(config, tokens, base)
    evaluation = evaluate(config, model, tokens, validated, base)
    return register(config, rows, splits, validated, tokens, model, evaluation, base)
