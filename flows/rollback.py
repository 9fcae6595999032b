"""Rollback: the former champion is the champion again."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.promote import roll_back


@flow(name="rollback", flow_run_name="rollback {model}")
def rollback(model: str, who: str = "", why: str = "") -> State:
    """Restore the former champion in one step; done twice it goes forward again.

    model: the registered model. who, why: for the journal.
    """
    version = roll_back(model, who, why)
    return Completed(name="Rolled back", message=f"{model} version {version} is the champion")
