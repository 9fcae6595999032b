"""Promotion as Prefect tasks: what is cached while a person decides, what the UI shows, and who is told."""

from __future__ import annotations

import re
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.runtime import flow_run

from hone.environment import home
from hone.promotion import promote, reconcile
from hone.promotion.decision import Decision, render_markdown, version_link
from hone.promotion.journal import Entry
from tasks.runtime.events import tell

EVENTS = {"rolled back": ("hone.rolled-back", "hone.champion.changed")}
CHANGED = ("hone.champion.changed",)


def _once_a_flow_run(context: TaskRunContext, inputs: dict[str, Any]) -> str:
    """A flow that waits for a person runs again from its top: what is done already is not done again."""
    return f"{flow_run.id}-{context.task.name}"


@task(name="compare", task_run_name="compare {model}", persist_result=True, cache_key_fn=_once_a_flow_run)
def _compare(model: str, version: str, policy: str, golden: str) -> Decision:
    journal = _journal(model)
    decision = promote.decide(journal, version, downloads=home().downloads, policy=policy, golden=golden)
    page = promote.log_decision(journal, decision)
    shown = render_markdown(decision, f"{_link(decision)}, `{page}` among the artifacts of run `{decision.run_id}`")
    create_markdown_artifact(shown, key=artifact_key(model), description=decision.reason)
    return decision


def compare(model: str, version: str, policy: str, golden: str) -> Decision:
    """The decision, made once in a flow run; its gates go to the UI."""
    decision: Decision = _cached(_compare, model, version, policy, golden)
    return decision


@task(name="announce candidate", persist_result=True, cache_key_fn=_once_a_flow_run)
def _announce_candidate(decision: Decision) -> str:
    tell(
        "hone.candidate.waiting",
        decision.model,
        what=f"{decision.model} version {decision.version} waits for an approval",
        why=decision.reason,
        link=_link(decision),
        figures=decision.figures(),
    )
    return render_markdown(decision, _link(decision))


def announce_candidate(decision: Decision) -> str:
    """Tell, once in a flow run, that a version waits for a person: the event hone.candidate.waiting.

    What that person is shown above the form, in Markdown.
    """
    return str(_cached(_announce_candidate, decision))


@task(name="turn down", cache_policy=NO_CACHE)
def turn_down(decision: Decision, who: str, why: str) -> None:
    """Journal that the version does not become the champion."""
    promote.refuse(_journal(decision.model), decision, who or promote.current_user(), why)


@task(name="shadow", cache_policy=NO_CACHE)
def shadow(decision: Decision, who: str) -> None:
    """Journal what would have been done."""
    promote.journal_shadow(_journal(decision.model), decision, who or promote.current_user())


@task(name="carry out", cache_policy=NO_CACHE)
def carry_out(decision: Decision, who: str, why: str) -> None:
    """Make the version the champion. Never retried: whoever lost to another has to compare anew."""
    journal = _journal(decision.model)
    try:
        promote.promote_version(
            journal, decision, who=who or promote.current_user(), why=why, downloads=home().downloads
        )
    finally:
        announce(decision.model)


@task(name="roll back", task_run_name="roll back {model}", cache_policy=NO_CACHE)
def roll_back(model: str, who: str, why: str) -> str:
    """Make the former champion the champion again; its version."""
    try:
        moved = promote.rollback(
            _journal(model), who=who or promote.current_user(), why=why, downloads=home().downloads
        )
    finally:
        announce(model)
    return moved.entry.to_version


@task(name="models", cache_policy=NO_CACHE)
def models() -> list[str]:
    """The registered models that have, or had, a champion."""
    return reconcile.models_with_champion(home().tracking_uri)


@task(name="watch", task_run_name="watch {model}", cache_policy=NO_CACHE)
def watch(model: str, enforce: bool) -> list[str]:
    """Bring journal and alias of a model together and tell of what nobody was told yet; what was found, in words."""
    added = reconcile.reconcile(_journal(model), downloads=home().downloads, enforce=enforce)
    announce(model)
    found = [_sentence(kept.entry) for kept in added]
    if found:
        shown = "\n".join([f"# {model}", *(f"- {line}" for line in found)])
        create_markdown_artifact(shown, key=artifact_key(model, "watch"), description=f"{model}: the champion moved")
    return found


def announce(model: str) -> None:
    """An event for each move of the champion that was not told of yet, those made on the command line among them.

    Should two do it at once, both send events of one id.
    """
    journal = _journal(model)
    for kept in reconcile.list_unannounced(journal):
        entry = kept.entry
        for event in EVENTS.get(entry.action, CHANGED):
            tell(
                event,
                model,
                key=f"{model}/{entry.number}/{entry.digest}",
                what=_sentence(entry),
                why=entry.why,
                link=_place(model, entry.to_version),
                figures=dict(entry.figures),
                action=entry.action,
                number=entry.number,
                who=entry.who,
                from_version=entry.from_version,
                to_version=entry.to_version,
            )
        journal.announced(kept)


def artifact_key(model: str, prefix: str = "promotion") -> str:
    """A key that Prefect takes: lower-case letters, digits and dashes."""
    return f"{prefix}-" + re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def _cached(cached: Any, *given: Any) -> Any:
    # The data folder is known when the flow runs, not when its module is imported.
    return cached.with_options(result_storage=home().root / "promotions")(*given)


def _journal(model: str) -> Any:
    return promote.open_journal(home().tracking_uri, model)


def _sentence(entry: Entry) -> str:
    versions = f"version {entry.from_version or 'none'} to {entry.to_version or 'none'}"
    return f"champion {entry.action} from {versions} by {entry.who}: {entry.why}"


def _link(decision: Decision) -> str:
    return version_link(home().tracking_uri, decision)


def _place(model: str, version: str) -> str:
    uri = home().tracking_uri
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}/#/models/{model}" + (f"/versions/{version}" if version else "")
    return f"models:/{model}" + (f"/{version}" if version else "")
