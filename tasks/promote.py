"""Promotion as Prefect tasks: results cached while a person decides, UI artifacts, and events."""

from __future__ import annotations

import re
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.runtime import flow_run, task_run

from hone.environment import current_user, home
from hone.promotion import promote, reconcile
from hone.promotion.decision import Decision, render_markdown, version_link
from hone.promotion.journal import Entry, describe_move
from hone.tracking.links import build_url, run_route, version_route
from tasks.runtime.events import emit_model_event
from tasks.runtime.pages import publish_last

EVENTS_BY_ACTION = {"rolled back": ("hone.rolled-back", "hone.champion.changed")}
DEFAULT_EVENTS = ("hone.champion.changed",)


def _once_a_flow_run(context: TaskRunContext, inputs: dict[str, Any]) -> str:
    """Cache key: a flow that waited for a person runs again from the top, and must not repeat finished tasks."""
    return f"{flow_run.id}-{context.task.name}"


def _name_comparison() -> str:
    parameters = task_run.parameters
    version = f"version {parameters['version']}" if parameters["version"] else "the candidate"
    return f"compare {version} of {parameters['model']} with the champion"


@task(
    name="compare",
    task_run_name=_name_comparison,
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_once_a_flow_run,
)
def _compare_versions(model: str, version: str, policy: str, golden: str) -> Decision:
    journal = _open_journal(model)
    decision = promote.decide(journal, version, downloads=home().downloads, policy=policy, golden=golden)
    page = promote.log_decision(journal, decision)
    url = build_url(home().tracking_uri, run_route(decision.experiment_id, decision.run_id, page))
    place = f"[The whole decision, in MLflow]({url})" if url else f"`{page}` among the files of run `{decision.run_id}`"
    summary = render_markdown(decision, f"{place} · {_decision_link(decision)}")
    publish_last(create_markdown_artifact, summary, key=artifact_key(model), description=decision.reason)
    return decision


def compare_versions(model: str, version: str, policy: str, golden: str) -> Decision:
    """Compare the version with the champion, once per flow run. The UI shows the gates."""
    decision: Decision = _call_cached(_compare_versions, model, version, policy, golden)
    return decision


@task(
    name="announce candidate",
    task_run_name="ask for approval of {decision.model} version {decision.version}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_once_a_flow_run,
)
def _announce_candidate(decision: Decision) -> str:
    emit_model_event(
        "hone.candidate.waiting",
        decision.model,
        what=f"{decision.model}: version {decision.version} waits for approval",
        why=decision.reason,
        figures=decision.figures(),
    )
    return render_markdown(decision, _decision_link(decision))


def announce_candidate(decision: Decision) -> str:
    """Emit hone.candidate.waiting, once per flow run; return the Markdown text shown above the approval form."""
    return str(_call_cached(_announce_candidate, decision))


@task(
    name="record refusal",
    task_run_name="record refusal of {decision.model} version {decision.version}",
    cache_policy=NO_CACHE,
)
def record_refusal(decision: Decision, who: str, why: str) -> None:
    """Write to the journal that the version does not become the champion."""
    promote.refuse(_open_journal(decision.model), decision, who or current_user(), why)


@task(
    name="record shadow decision",
    task_run_name="record shadow decision on {decision.model} version {decision.version}",
    cache_policy=NO_CACHE,
)
def record_shadow(decision: Decision, who: str) -> None:
    """Write to the journal what the policies manual and auto would have done."""
    promote.journal_shadow(_open_journal(decision.model), decision, who or current_user())


@task(
    name="promote version",
    task_run_name="promote {decision.model} version {decision.version}",
    cache_policy=NO_CACHE,
)
def promote_version(decision: Decision, who: str, why: str) -> str:
    """Make the version the champion; return a sentence on the move, also if a killed attempt of this run made it.

    Never retried: if the champion has changed, the comparison is out of date.
    """
    journal, who, downloads = _open_journal(decision.model), who or current_user(), home().downloads
    try:
        done = promote.find_promotion(journal, decision.version, who=who, downloads=downloads)
        moved = done or promote.promote_version(journal, decision, who=who, why=why, downloads=downloads)
    finally:
        emit_moves(decision.model)
    return _describe_entry(decision.model, moved.entry) + (f" ({promote.describe_repetition(done)})" if done else "")


@task(name="roll back", task_run_name="roll back {model} to the previous champion", cache_policy=NO_CACHE)
def roll_back(model: str, who: str, why: str, undo: bool) -> str:
    """Make the previous champion the champion again, or undo that; return a sentence on the move."""
    journal, who = _open_journal(model), who or current_user()
    try:
        moved, moved_now = promote.rollback(journal, who=who, why=why, downloads=home().downloads, undo=undo)
    finally:
        emit_moves(model)
    return _describe_entry(model, moved.entry) + ("" if moved_now else f" ({promote.describe_repetition(moved)})")


@task(name="list models", task_run_name="list models with a champion", cache_policy=NO_CACHE)
def list_models() -> list[str]:
    """The registered models that have or had a champion."""
    return reconcile.models_with_champion(home().tracking_uri)


@task(name="reconcile", task_run_name="compare the champion of {model} with the journal", cache_policy=NO_CACHE)
def reconcile_model(model: str, enforce: bool) -> list[str]:
    """Reconcile a model's journal with its alias, and emit events for new moves; return a sentence per move."""
    added = reconcile.reconcile(_open_journal(model), downloads=home().downloads, enforce=enforce)
    emit_moves(model)
    moves = [_describe_entry(model, record.entry) for record in added]
    if moves:
        page = "\n".join([f"# {model}", *(f"- {line}" for line in moves)])
        publish_last(
            create_markdown_artifact, page, key=artifact_key(model, "watch"), description=f"{model}: the champion moved"
        )
    return moves


def emit_moves(model: str) -> None:
    """Emit an event for each move of the champion without one, including moves made on the command line.

    Two processes that do this at the same time send events with the same id, which Prefect stores once.
    """
    journal = _open_journal(model)
    for record in reconcile.list_unannounced(journal):
        entry = record.entry
        for event in EVENTS_BY_ACTION.get(entry.action, DEFAULT_EVENTS):
            emit_model_event(
                event,
                model,
                key=f"{model}/{entry.number}/{entry.digest}",
                labels={"hone.action": entry.action},
                what=describe_move(model, entry),
                why=entry.why,
                severity="info" if entry.action == "promoted" else "warning",
                link=_version_link(model, entry.to_version),
                figures=dict(entry.figures),
                action=entry.action,
                number=entry.number,
                who=entry.who,
                from_version=entry.from_version,
                to_version=entry.to_version,
            )
        journal.mark_announced(record)


def artifact_key(model: str, prefix: str = "promotion") -> str:
    """A Prefect artifact key, which may have lower-case letters, digits and dashes."""
    return f"{prefix}-" + re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def _call_cached(cached_task: Any, *arguments: Any) -> Any:
    # Set here, not in the decorator: the data folder is known when the flow runs, not when its module is imported.
    return cached_task.with_options(result_storage=home().promotions)(*arguments)


def _open_journal(model: str) -> Any:
    return promote.open_journal(home().tracking_uri, model)


def _describe_entry(model: str, entry: Entry) -> str:
    return describe_move(model, entry) + (f": {entry.why}" if entry.why else "")


def _decision_link(decision: Decision) -> str:
    return version_link(home().tracking_uri, decision)


def _version_link(model: str, version: str) -> str:
    url = build_url(home().tracking_uri, version_route(model, version))
    return url or f"models:/{model}" + (f"/{version}" if version else "")
