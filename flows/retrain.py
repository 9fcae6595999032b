"""The retraining flow: fine-tunes again if there are new rows to train on."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.choice import Choice, config_name, resolve_config
from flows.finetune import finetune
from hone.drift.retraining import config_as_of as at
from hone.drift.retraining import list_dates
from hone.store.artifact import Artifact
from tasks.ingest import ingest
from tasks.retrain import Outcome, StartedBy, check_new_rows, find_trigger, publish_outcomes
from tasks.validate import STOPPED


def _run_name() -> str:
    parameters = flow_run.parameters
    moment = f", as of {parameters['as_of']}" if parameters.get("as_of") else ""
    until = f" until {parameters['until']}" if parameters.get("until") else ""
    trigger = find_trigger(parameters.get("started_by", "person"))
    return f"retrain {config_name(parameters['config'])}: {trigger}{moment}{until}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False)
def retrain(
    config: Choice,
    min_new_rows: Annotated[int, Field(ge=0, description="Minimum number of new rows, by content.")] = 1,
    as_of: Annotated[date | datetime | None, Field(description="Train on the rows as of this date.")] = None,
    until: Annotated[date | datetime | None, Field(description="Last date of a range that begins at as_of.")] = None,
    step: Annotated[Literal["day", "week"], Field(description="Interval between the dates of the range.")] = "day",
    started_by: Annotated[StartedBy, Field(description="What started this run.")] = "person",
) -> State[None]:
    """Fine-tune again if the source has rows that the champion (else the newest version) was not trained on.

    With `as_of`, train on the rows as of that date unless a version was trained on exactly these; with `until` too,
    do so for each date of the range in order. The run ends as `Nothing new`, `Waiting for rows`, or `Completed` with
    the version; as `Validation stopped` or `Fine-tuning failed` if the run of `finetune` did not complete.

    Args:
        config: The configuration, field by field, or the name of a file in conf/.
    """
    chosen_config = resolve_config(config)
    outcomes: list[Outcome] = []
    summaries: list[str] = []
    previous_rows: Artifact | None = None
    for day in list_dates(as_of, until, step):
        dated = at(chosen_config, day) if day else chosen_config
        rows = ingest(dated)
        check = check_new_rows(dated, rows, min_new_rows, day is not None, previous_rows)
        version = ""
        if check.decision == "train":
            trained: State[Any] = finetune(dated, return_state=True)
            if not trained.is_completed():
                return _build_failed_state(trained)
            version = trained.result().facts()["version"]
            summaries.append(str(trained.message))
        previous_rows = rows if check.decision != "too few new rows" else previous_rows
        outcomes.append((str(day or ""), check, version))
    publish_outcomes(chosen_config.name, find_trigger(started_by), outcomes)
    return _final_state(chosen_config.name, outcomes, summaries)


def _final_state(name: str, outcomes: list[Outcome], summaries: list[str]) -> State[None]:
    """`summaries` are the lines about the new versions."""
    if summaries:
        reason = next(check.why for _, check, version in reversed(outcomes) if version)
        return Completed(message=f"{'; '.join(summaries)}: {reason}")
    is_waiting = any(check.decision == "too few new rows" for _, check, _ in outcomes)
    return Completed(name="Waiting for rows" if is_waiting else "Nothing new", message=f"{name}: {outcomes[-1][1].why}")


def _build_failed_state(trained: State[Any]) -> State[None]:
    """The final state after a fine-tuning that did not complete: by another name than `Failed`.

    The automation `notify-run-failed` reports the run of `finetune`, and would report this one too.
    """
    name = trained.name if trained.name == STOPPED else "Fine-tuning failed"
    return Failed(name=name, message=trained.message, data=trained.result(raise_on_failure=False))
