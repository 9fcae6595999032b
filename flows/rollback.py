"""The rollback flow: makes the previous champion the champion again."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.choice import ModelName
from tasks.promote import roll_back


@flow(name="rollback", flow_run_name="rollback {model}")
def rollback(model: ModelName, who: str = "", why: str = "", undo: bool = False) -> State:
    """Make the previous champion the champion again; started twice in a row, it moves the champion once.

    Args:
        model: Name of the registered model.
        who: Name of the person who rolls back, for the journal.
        why: Reason, for the journal.
        undo: Reverse the rollback that was the champion's last move.
    """
    return Completed(name="Rolled back", message=roll_back(model, who, why, undo))
