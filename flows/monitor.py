"""The monitor: is a model asked what it was trained for?"""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.choice import Choice, chosen, name_of
from hone.config import SourcePart
from tasks.monitor import announce, check


def _run_name() -> str:
    given = flow_run.parameters
    return f"monitor {given.get('model') or name_of(given['config'])}"


@flow(name="monitor", flow_run_name=_run_name, persist_result=False)
def monitor(config: Choice | None = None, model: str = "", inputs: SourcePart | None = None) -> State[None]:
    """Compare recent inputs with the rows that a model's champion was made from; drift emits one event an episode.

    Give a configuration (the form, or a file's name in conf/), or a model's name: then its own configuration is taken.
    `inputs` are where recent inputs lie, else those of the section monitoring. Ends as `No drift`, `Drift` or
    `Too few rows`.
    """
    given = chosen(config) if config else None
    name = model or (given.registration.model or given.name if given else "")
    checked = check(name, given, inputs)
    announce(checked, config if isinstance(config, str) and config else name)
    verdict = checked.verdict
    why = f" by {', '.join(verdict.drifted)}, episode {checked.episode.number}" if verdict.drifted else ""
    counts = f"{verdict.recent:,} rows against {verdict.reference:,}"
    message = f"{name} version {checked.version.version}: {verdict.decision}{why} ({counts}); {checked.link}"
    return Completed(name=verdict.decision.capitalize(), message=message)
