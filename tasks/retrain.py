"""retrain: is there anything new to train on, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from hone.config.sections import RunConfig
from hone.drift import retraining
from hone.drift.retraining import NewRows
from hone.environment import home
from hone.store.artifact import Artifact
from tasks.runtime.retries import RETRIES

StartedBy = Literal["person", "schedule", "drift", "new rows"]
Outcome = tuple[str, NewRows, str]  # the date ('' for now), the look at the source, the version that came of it


@task(name="look", task_run_name="look {config.name}", persist_result=False, **RETRIES)
def look(config: RunConfig, rows: Artifact, min_new_rows: int, backfill: bool, before: Artifact | None) -> NewRows:
    """Whether the rows are new enough to train on: against the champion's, in a backfill against the date before."""
    uri = home().tracking_uri
    if backfill:
        return retraining.find_new_rows_as_of(config, rows, uri, min_new_rows, before)
    return retraining.find_new_rows(config, rows, uri, min_new_rows)


@task(name="account", task_run_name="account {name}", persist_result=False)
def account(name: str, started_by: StartedBy, outcomes: Sequence[Outcome]) -> None:
    """Say in the Prefect UI why the run was started, and what came of it."""
    lines = [f"# Retrain {name}", f"Started by: **{started_by}**", ""]
    lines += ["| as of | rows | new | decision | why | version |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {day or 'now'} | {seen.rows:,} | {seen.new:,} | {seen.decision} | {seen.why} | {version or '-'} |"
        for day, seen, version in outcomes
    ]
    create_markdown_artifact("\n".join(lines), key=f"retrain-{name}", description=f"Retrain {name}: {started_by}")


def started(given: StartedBy) -> StartedBy:
    """What started this run: what it was told; a run that Prefect made for a schedule tells so by its tag."""
    return "schedule" if given == "person" and "auto-scheduled" in flow_run.tags else given
