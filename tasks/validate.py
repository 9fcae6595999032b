"""validate: checks the rows against expectations before anything is trained on them."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Failed

from hone.config.sections import RunConfig
from hone.display import escape_controls
from hone.errors import ValidationFailed
from hone.store.artifact import Artifact
from tasks.runtime.events import emit_model_event
from tasks.runtime.pages import publish, publish_last
from tasks.stage import get_artifact, run_stage, stage_task

STOPPED = "Validation stopped"  # the name of a state


@stage_task("validate")
def validate(config: RunConfig, curate: Artifact, base: Artifact | None = None) -> State[Artifact]:
    """Validate the splits; return them without quarantined rows. The UI shows the expectations as a table."""
    try:
        state = run_stage("validate", {"config": config, "curate": curate, "base": base})
    except ValidationFailed as fault:
        emit_model_event(
            "hone.validation.stopped",
            config.registration.model or config.name,
            what=f"{config.registration.model or config.name}: validation stopped the run of {config.name}",
            why=_summarize_fault(fault.what),
            severity="warning",
        )
        page = f"# Validation stopped {config.name}\n\n{_list_lines(fault.what)}\n\n{_list_lines(fault.fix)}"
        publish_last(
            create_markdown_artifact,
            page,
            key=f"validation-{config.name}",
            description="Why validation stopped the run",
        )
        raise
    artifact = get_artifact(state)
    facts = artifact.facts()
    table = [
        {name: str(result.get(name, "")) for name in ("split", "expectation", "column", "success", "observed")}
        for result in facts["expectations"]
    ]
    publish(create_table_artifact, table, key=f"expectations-{config.name}", description="Expectations of the rows")
    return state


def build_stopped_state(fault: ValidationFailed) -> State[Any]:
    """The final state of a flow that validation stopped.

    Its name is not `Failed`: `notify-validation-stopped` reports it, and `notify-run-failed` must not do so too.
    """
    return Failed(name=STOPPED, message=f"validation: {_summarize_fault(fault.what)}", data=fault)


def _summarize_fault(what: str) -> str:
    return "; ".join(_list_expectations(what))


def _list_lines(text: str) -> str:
    """The lines of an error as a list in Markdown, each as it is: a backtick of a row would end the code span."""
    lines = (escape_controls(line).replace("`", "'") for line in _list_expectations(text))
    return "\n".join(f"- `{line}`" for line in lines)


def _list_expectations(what: str) -> list[str]:
    """The expectations that do not hold, without the example rows, which are indented by five spaces or more."""
    return [line.strip() for line in what.splitlines() if not line.startswith(" " * 5)]
