"""Retraining: the line again, where there is anything new to train on."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.choice import Choice, chosen, name_of
from flows.finetune import finetune
from hone.drift.retraining import config_as_of as at
from hone.drift.retraining import list_dates
from hone.store.artifact import Artifact
from tasks.ingest import ingest
from tasks.retrain import Outcome, StartedBy, account, look, started


def _run_name() -> str:
    given = flow_run.parameters
    when = f", as of {given['as_of']}" if given.get("as_of") else ""
    until = f" until {given['until']}" if given.get("until") else ""
    return f"retrain {name_of(given['config'])}: {started(given.get('started_by', 'person'))}{when}{until}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False)
def retrain(
    config: Choice,
    min_new_rows: Annotated[int, Field(ge=0, description="Wait until so many rows are new by content.")] = 1,
    as_of: Annotated[date | datetime | None, Field(description="Train on the rows as of then.")] = None,
    until: Annotated[date | datetime | None, Field(description="The last of a range of dates from as_of.")] = None,
    step: Annotated[Literal["day", "week"], Field(description="From one date of the range to the next.")] = "day",
    started_by: Annotated[StartedBy, Field(description="What started this run.")] = "person",
) -> State[None]:
    """Run the line if the source has rows that the champion (else the newest version) was not trained on.

    `config` is the form, or the name of a file in conf/. With `as_of` the line runs on the rows as of then, unless a
    version was trained on just these; with `until`, for each date of the range in order. Ends as `Nothing new`,
    `Waiting for rows`, or Completed with the version.
    """
    chosen_config = chosen(config)
    outcomes: list[Outcome] = []
    before: Artifact | None = None
    for day in list_dates(as_of, until, step):
        dated = at(chosen_config, day) if day else chosen_config
        rows = ingest(dated)
        seen = look(dated, rows, min_new_rows, day is not None, before)
        version = finetune(dated).facts()["version"] if seen.decision == "train" else ""
        before = rows if seen.decision != "too few new rows" else before
        outcomes.append((str(day or ""), seen, version))
    account(chosen_config.name, started(started_by), outcomes)
    return _ended(chosen_config.name, outcomes)


def _ended(name: str, outcomes: list[Outcome]) -> State[None]:
    versions = [version for _, _, version in outcomes if version]
    if versions:
        return Completed(message=f"{name} version {', '.join(versions)}: {outcomes[-1][1].why}")
    waits = any(seen.decision == "too few new rows" for _, seen, _ in outcomes)
    return Completed(name="Waiting for rows" if waits else "Nothing new", message=outcomes[-1][1].why)
