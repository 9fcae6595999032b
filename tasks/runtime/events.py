"""The events that Hone emits through Prefect. Automations start deployments and notify people on them.

| event | when |
| --- | --- |
| hone.validation.stopped | expectations about the rows do not hold, and the run stops |
| hone.drift.detected | recent inputs differ from what a version was trained on |
| hone.new-data | the source has enough new rows |
| hone.candidate.waiting | a candidate waits for a person's yes or no |
| hone.champion.changed | the alias `champion` was moved |
| hone.rolled-back | the previous champion is the champion again |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

Severity = Literal["info", "warning"]  # a run that failed is an "error": its event is Prefect's own


def emit_model_event(
    event: str,
    model: str,
    *,
    what: str,
    why: str,
    severity: Severity = "info",
    link: str = "",
    figures: Mapping[str, Any] | None = None,
    key: str = "",
    labels: Mapping[str, str] | None = None,
    **extra: Any,
) -> None:
    """Emit `event` about `model`: what happened, beginning with the model's name; why; how severe it is; and a link.

    People read `what: why` as one sentence: `demo: version 2 is the champion (was 1), promoted by Ada: better`.
    The default link is this run's page in the Prefect UI. Pass no rows and no secrets: Prefect stores the event and
    sends it to people. Events with the same `key` have the same id, and Prefect stores an id once. `labels` are those
    of the event's resource, by which automations select events; `extra` is payload for them.
    """
    identity: dict[str, Any] = {"id": uuid5(NAMESPACE_URL, f"{event}/{key}")} if key else {}
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"hone.model.{model}", "prefect.resource.name": model, **(labels or {})},
        payload={
            "what": what,
            "why": why,
            "severity": severity,
            "link": link or _this_run_url(),
            "figures": dict(figures or {}),
            **extra,
        },
        **identity,
    )


def _this_run_url() -> str:
    return (url_for("flow-run", str(flow_run.id)) or "") if flow_run.id else ""
