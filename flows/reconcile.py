"""Watching the registry: champions that were moved by hand, and moves that were not finished or not told of."""

from __future__ import annotations

from prefect import flow

from tasks.promote import list_models as models_with_champion
from tasks.promote import reconcile_model


@flow(name="reconcile", flow_run_name="watch the registry", persist_result=False)
def reconcile(models: list[str] = [], enforce: bool = False) -> list[str]:  # noqa: B006 - Prefect copies parameters
    """Journal, judge and announce what happened to champions without Hone.

    models: those to look at, all that have a champion where empty. enforce: put a champion that was moved by hand back,
    also where the versions' own configuration does not ask for that.
    """
    names = models or models_with_champion()
    states = [reconcile_model(name, enforce, return_state=True) for name in names]
    return [line for state in states for line in state.result()]
