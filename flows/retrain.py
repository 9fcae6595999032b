"""The retraining flow: fine-tunes again if there are new rows to train on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from flows.choice import OptionalChoice, config_name, resolve_config
from flows.finetune import finetune
from hone.config.sections import RunConfig
from hone.drift.retraining import config_as_of as at
from hone.drift.retraining import list_dates, take_swept_values
from hone.environment import home
from hone.store.artifact import Artifact
from hone.tracking.reader import SCHEME
from tasks.ingest import ingest
from tasks.retrain import Outcome, StartedBy, check_new_rows, find_trigger, list_scheduled_versions, publish_outcomes
from tasks.validate import STOPPED

Moment = date | datetime


def _run_name() -> str:
    parameters = flow_run.parameters
    name = config_name(parameters.get("config") or "champions")
    moment = f", as of {parameters['as_of']}" if parameters.get("as_of") else ""
    until = f" until {parameters['until']}" if parameters.get("until") else ""
    trigger = find_trigger(parameters.get("started_by", "person"))
    return f"retrain {name}: {trigger}{moment}{until}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False)
def retrain(
    config: OptionalChoice = None,
    min_new_rows: Annotated[int, Field(ge=0)] | SkipJsonSchema[None] = None,
    as_of: Moment | SkipJsonSchema[None] = None,
    until: Moment | SkipJsonSchema[None] = None,
    step: Literal["day", "week"] = "day",
    started_by: StartedBy = "person",
) -> State[None]:
    """Fine-tune again if the source has rows that the champion (else the newest version) was not trained on.

    Without a configuration, do so for every champion whose configuration has `retraining.scheduled`, each in a run of
    its own: the run ends as the most urgent of these, or as `Nothing to retrain`. With `as_of`, train on the rows as of
    that date unless a version was trained on exactly these; with `until` too, do so for each date of the range in
    order. The run ends as `Nothing new`, `Waiting for rows`, or `Completed` with the version; as `Validation stopped`
    or `Fine-tuning failed` if the run of `finetune` did not complete.

    Args:
        config: A file in conf/, a registered version, or a whole configuration; empty for all champions with scheduled
            retraining.
        min_new_rows: Minimum number of new rows, by content; empty for the configuration's.
        as_of: Train on the rows as of this date.
        until: Last date of a range that begins at as_of.
        step: Interval between the dates of the range.
        started_by: What started this run.
    """
    if config is None:
        options = (min_new_rows, as_of, until, step, started_by)
        states: list[State[Any]] = [retrain(uri, *options, return_state=True) for uri in list_scheduled_versions()]
        return _summarize(states)
    chosen_config = _resolve(config)
    min_new = chosen_config.retraining.min_new_rows if min_new_rows is None else min_new_rows
    outcomes: list[Outcome] = []
    summaries: list[str] = []
    previous_rows: Artifact | None = None
    for day in list_dates(as_of, until, step):
        dated = at(chosen_config, day) if day else chosen_config
        rows = ingest(dated)
        check = check_new_rows(dated, rows, min_new, day is not None, previous_rows)
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


def _resolve(config: RunConfig | str) -> RunConfig:
    """The configuration to train with. That of a version which was trained on rows as of a date reads today's rows.

    With `sweep.reuse` it has the values of the latest sweep.
    """
    resolved = resolve_config(config)
    is_registered = isinstance(config, str) and config.startswith(SCHEME)
    return take_swept_values(at(resolved, None) if is_registered else resolved, home().tracking_uri)


def _summarize(states: Sequence[State[Any]]) -> State[None]:
    """The final state of a run for several champions: that of the most urgent of their runs."""
    if not states:
        message = "no champion has scheduled retraining in its configuration (retraining.scheduled)"
        return Completed(name="Nothing to retrain", message=message)
    most_urgent = min(states, key=_rank)
    message = "\n".join(str(state.message) for state in states)
    if most_urgent.is_completed():
        return Completed(name=most_urgent.name, message=message)
    return Failed(name="Retraining failed", message=message)


def _rank(state: State[Any]) -> int:
    """0 for the most urgent."""
    if not state.is_completed():
        return 0
    return 1 + ("Completed", "Waiting for rows", "Nothing new").index(str(state.name))


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
