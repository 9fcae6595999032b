"""The promotion flow: comparison with the champion, gates, approval if the policy requires it, promotion."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.choice import ModelName
from tasks.promote import announce_candidate, compare_versions, promote_version, record_refusal, record_shadow


class Approval(RunInput):
    """Shall the version become the champion?"""

    decision: Literal["approve", "reject"] = Field(description="Whether the version becomes the champion.")
    who: str = Field(min_length=1, description="Your name, for the journal.")
    reason: str = Field("", description="The reason, for the journal.")


def _run_name() -> str:
    parameters = flow_run.parameters
    version = f" version {parameters['version']}" if parameters.get("version") else ""
    return f"promote {parameters['model']}{version}"


@flow(name="promote", flow_run_name=_run_name)
def promote(
    model: ModelName,
    version: str = "",
    policy: Literal["configured", "manual", "auto", "shadow"] = "configured",
    golden: str = "",
    who: str = "",
    why: str = "",
) -> State:
    """Make a version the champion if the gates pass and the policy allows it.

    Args:
        model: Name of the registered model.
        version: Version number; empty for the version with the alias candidate.
        policy: manual asks a person, auto does not, shadow only records; configured uses the version's configuration.
        golden: Path of a golden set, in place of the one in the version's configuration.
        who: Name of the person who promotes, for the journal.
        why: Reason, for the journal.
    """
    decision = compare_versions(model, version, "" if policy == "configured" else policy, golden)
    name = f"{decision.model} version {decision.version}"
    if decision.policy == "shadow":
        record_shadow(decision, who)
        return Completed(name="Shadow", message=f"{name} was compared, nothing was moved: {decision.reason}")
    if not decision.passed:
        record_refusal(decision, who or "the gates", decision.reason)
        return Completed(name="Refused", message=f"{name} was {decision.reason}")
    if decision.policy == "manual":
        form = Approval.with_initial_data(description=announce_candidate(decision))
        answer = suspend_flow_run(wait_for_input=form, timeout=decision.expires_seconds, key="approval")
        who, why = answer.who, answer.reason
        if answer.decision == "reject":
            record_refusal(decision, who, why or "rejected")
            return Completed(name="Rejected", message=f"{name} was rejected by {who}" + (f": {why}" if why else ""))
    return Completed(name="Promoted", message=promote_version(decision, who, why))
