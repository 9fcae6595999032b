"""The flow that watches the registry: champions moved by hand, unfinished moves, and moves without an event."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from hone.config.folder import list_names
from tasks.forms import update_forms
from tasks.promote import list_models as models_with_champion
from tasks.promote import reconcile_model


@flow(name="reconcile", flow_run_name="watch the registry", persist_result=False)
def reconcile(models: list[str] = [], enforce: bool = False) -> State[list[str]]:  # noqa: B006 - copied
    """Record in the journal, evaluate and announce moves of champions that were made without Hone.

    The run ends as `No moves`, or as `Completed` with a sentence on each move. Then the forms of the deployments offer
    the files that are in conf/ now, and the models that are registered.

    Args:
        models: Names of the models to check; empty for all models with a champion.
        enforce: Undo moves that were made by hand, even if the configuration does not require it.
    """
    names = models or models_with_champion()
    states = [reconcile_model(name, enforce, return_state=True) for name in names]
    update_forms(list_names(), return_state=True)  # a deployment with a parameter that is no choice fails no check
    moves = [line for state in states for line in state.result()]
    if not moves:
        models_checked = ", ".join(names) or "there is no champion yet"
        return Completed(name="No moves", message=f"no champion was moved by hand: {models_checked}", data=moves)
    return Completed(message="\n".join(moves), data=moves)
