"""The monitor: is a model asked what it was trained for?"""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.choice import Choice, config_name, resolve_config
from hone.config.parts import SourcePart
from tasks.monitor import CheckResult, announce_drift, check_model, list_monitored_models

ATTENTION = ("drift", "too few rows", "no drift")


def _run_name() -> str:
    given = flow_run.parameters
    return f"monitor {given.get('model') or config_name(given.get('config') or 'champions')}"


@flow(name="monitor", flow_run_name=_run_name, persist_result=False)
def monitor(config: Choice | None = None, model: str = "", inputs: SourcePart | None = None) -> State[None]:
    """Compare recent inputs with the rows that a model's champion was made from; drift emits one event an episode.

    Give a configuration (the form, or a file's name in conf/), or a model's name: then its own configuration is taken.
    With neither, each champion is checked whose own configuration has `monitoring.inputs`. `inputs` are where recent
    inputs lie, else those of the section monitoring. Ends as `No drift`, `Drift`, `Too few rows` or `Nothing to
    monitor`; of several champions as the one that wants attention most.
    """
    given = resolve_config(config) if config else None
    name = model or (given.registration.model or given.name if given else "")
    names = [name] if name else list_monitored_models()
    states = [check_model(one, given, inputs, return_state=True) for one in names]
    for one, state in zip(names, states, strict=True):
        if state.is_completed():
            announce_drift(state.result(), config if isinstance(config, str) and config else one)
    found = [state.result() for state in states]
    decisions = {checked.verdict.decision for checked in found}
    decision = next((one for one in ATTENTION if one in decisions), "nothing to monitor")
    message = (
        "\n".join(map(_describe, found))
        or "no champion's own configuration says where recent inputs are (monitoring.inputs)"
    )
    return Completed(name=decision.capitalize(), message=message)


def _describe(checked: CheckResult) -> str:
    version, verdict = checked.version, checked.verdict
    why = f" by {', '.join(verdict.drifted)}, episode {checked.episode.number}" if verdict.drifted else ""
    counts = f"{verdict.recent:,} rows against {verdict.reference:,}"
    return f"{version.name} version {version.version}: {verdict.decision}{why} ({counts}); {checked.link}"
