"""Promotion: a version against the champion, the gates, a person where the policy asks for one, and the move."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field

from tasks.promote import announce_candidate, compare_versions, promote_version, record_refusal, record_shadow


class Approval(RunInput):
    """Shall the version become the champion?"""

    decision: Literal["approve", "reject"] = Field(description="Whether it becomes the champion.")
    who: str = Field(min_length=1, description="Your name, for the journal.")
    reason: str = Field("", description="Why, for the journal.")


@flow(name="promote", flow_run_name="promote {model} {version}")
def promote(
    model: str,
    version: str = "",
    policy: Literal["manual", "auto", "shadow"] | None = None,
    golden: str = "",
    who: str = "",
    why: str = "",
) -> State:
    """Make a version the champion, if the gates and the policy say so.

    model: the registered model. version: its number, the one with the alias candidate where empty. policy, golden: in
    place of what the version's own configuration says. who, why: for the journal.
    """
    decision = compare_versions(model, version, policy or "", golden)
    if decision.policy == "shadow":
        record_shadow(decision, who)
        return Completed(name="Shadow", message=decision.reason)
    if not decision.passed:
        record_refusal(decision, who or "the gates", decision.reason)
        return Completed(name="Refused", message=decision.reason)
    if decision.policy == "manual":
        form = Approval.with_initial_data(description=announce_candidate(decision))
        answer = suspend_flow_run(wait_for_input=form, timeout=decision.expires_seconds, key="approval")
        who, why = answer.who, answer.reason
        if answer.decision == "reject":
            record_refusal(decision, who, why or "rejected")
            return Completed(name="Rejected", message=f"{who}: {why or 'rejected'}")
    promote_version(decision, who, why)
    return Completed(name="Promoted", message=f"{model} version {decision.version} is the champion")
