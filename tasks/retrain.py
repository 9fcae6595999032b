"""retrain: checks for new rows and reports the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from hone.config.sections import RunConfig
from hone.drift import retraining
from hone.drift.champions import load_current_configs
from hone.drift.retraining import NewRows
from hone.environment import home
from hone.store.artifact import Artifact
from tasks.runtime.pages import publish_last
from tasks.runtime.retries import RETRIES

StartedBy = Literal["person", "schedule", "drift", "new rows"]
Outcome = tuple[str, NewRows, str]  # the date ('' for now), the result of the check for new rows, the new version or ''


@task(
    name="list scheduled versions",
    task_run_name="list champions with scheduled retraining",
    persist_result=False,
    **RETRIES,
)
def list_scheduled_versions() -> list[str]:
    """The URIs of the champions whose configuration has `retraining.scheduled`."""
    configs, damaged = load_current_configs(home().tracking_uri)
    for fault in damaged:
        get_run_logger().warning(str(fault))
    return [version.uri for version, config in configs if (config.get("retraining") or {}).get("scheduled")]


@task(name="check new rows", task_run_name="check {config.name} for new rows", persist_result=False, **RETRIES)
def check_new_rows(
    config: RunConfig, rows: Artifact, min_new_rows: int, backfill: bool, before: Artifact | None
) -> NewRows:
    """Whether enough rows are new: compared with the champion's rows, in a backfill with the previous date's rows."""
    uri = home().tracking_uri
    if backfill:
        return retraining.find_new_rows_as_of(config, rows, uri, min_new_rows, before)
    return retraining.find_new_rows(config, rows, uri, min_new_rows)


@task(name="publish outcomes", task_run_name="publish outcomes of retraining {name}", persist_result=False)
def publish_outcomes(name: str, started_by: StartedBy, outcomes: Sequence[Outcome]) -> None:
    """Show in the Prefect UI what started the run, and the outcome for each date."""
    lines = [f"# Retrain {name}", f"Started by: **{started_by}**", ""]
    lines += ["| as of | rows | new | decision | why | version |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {day or 'now'} | {check.rows:,} | {check.new:,} | {check.decision} | {check.why} | {version or '-'} |"
        for day, check, version in outcomes
    ]
    publish_last(
        create_markdown_artifact, "\n".join(lines), key=f"retrain-{name}", description=f"Retrain {name}: {started_by}"
    )


def find_trigger(started_by: StartedBy) -> StartedBy:
    """What started this run: the parameter, or "schedule" for a run that has Prefect's tag of scheduled runs."""
    return "schedule" if started_by == "person" and "auto-scheduled" in flow_run.tags else started_by
