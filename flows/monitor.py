"""The monitoring flow: compares recent inputs with the rows that a model was trained on."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic.json_schema import SkipJsonSchema

from flows.choice import OptionalChoice, OptionalModelName, SourceChoice, config_name, resolve_config, resolve_source
from tasks.monitor import (
    CheckResult,
    announce_drift,
    check_model,
    list_monitored_models,
)

ATTENTION = ("drift", "too few rows", "no drift")  # the most urgent first


def _run_name() -> str:
    parameters = flow_run.parameters
    return f"monitor {parameters.get('model') or config_name(parameters.get('config') or 'champions')}"


@flow(name="monitor", flow_run_name=_run_name, persist_result=False)
def monitor(
    config: OptionalChoice = None, model: OptionalModelName = "", inputs: SourceChoice | SkipJsonSchema[None] = None
) -> State[list[CheckResult]]:
    """Compare recent inputs with the rows that a model's champion was trained on; emit one event per episode of drift.

    Give a configuration or a model's name. With neither, every champion whose configuration has `monitoring.inputs`
    is checked. The run ends as `No drift`, `Drift`, `Too few rows` or `Nothing to monitor`; with several champions,
    as the most urgent of these.

    Args:
        config: A file in conf/, a registered version, or a whole configuration; with neither this nor a model, all
            champions that have `monitoring.inputs`.
        model: The registered model to check; its champion's own configuration is used if `config` is not given.
        inputs: Path, glob or URL of files with recent inputs, or another source; empty for the configuration's
            `monitoring.inputs`.
    """
    resolved = resolve_config(config) if config else None
    name = model or (resolved.registration.model or resolved.name if resolved else "")
    source = resolve_source(inputs) if inputs else None
    names = [name] if name else list_monitored_models()
    states = [check_model(model_name, resolved, source, return_state=True) for model_name in names]
    for state in states:
        if state.is_completed():
            announce_drift(state.result(), config if isinstance(config, str) else "")
    results = [state.result() for state in states]
    decisions = {checked.verdict.decision for checked in results}
    decision = next((model_name for model_name in ATTENTION if model_name in decisions), "nothing to monitor")
    message = (
        "\n".join(map(_describe, results))
        or "no champion has a source of recent inputs in its configuration (monitoring.inputs)"
    )
    return Completed(name=decision.capitalize(), message=message, data=results)


def _describe(checked: CheckResult) -> str:
    version, verdict = checked.version, checked.verdict
    reason = f" by {', '.join(verdict.drifted)}, episode {checked.episode.number}" if verdict.drifted else ""
    counts = f"{verdict.recent:,} rows against {verdict.reference:,}"
    if verdict.visible is not None:
        counts += f"; rows unlike the training's are found from {verdict.visible:.1%}"
    return f"{version.name} version {version.version}: {verdict.decision}{reason} ({counts}); {checked.link}"
