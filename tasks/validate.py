"""validate: checks the rows against expectations before anything is trained on them."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.errors import ValidationFailed
from hone.store.artifact import Artifact
from tasks.runtime.events import emit_model_event
from tasks.stage import get_artifact, run_stage, stage_task


@stage_task("validate")
def validate(config: RunConfig, curate: Artifact, base: Artifact | None = None) -> State[Artifact]:
    """Validate the splits; return them without quarantined rows. The UI shows the expectations as a table."""
    try:
        state = run_stage("validate", {"config": config, "curate": curate, "base": base})
    except ValidationFailed as fault:
        emit_model_event(
            "hone.validation.stopped",
            config.registration.model or config.name,
            what=f"{config.name} stopped: its rows did not pass validation",
            why=_summarize_fault(fault.what),
        )
        raise
    artifact = get_artifact(state)
    facts = artifact.facts()
    table = [
        {name: str(result.get(name, "")) for name in ("split", "expectation", "column", "success", "observed")}
        for result in facts["expectations"]
    ]
    create_table_artifact(table, key=f"expectations-{config.name}", description="Expectations of the rows")
    create_link_artifact(
        (artifact.path / facts["data_docs"]).as_uri(),
        "Data Docs",
        key=f"data-docs-{config.name}",
        description="Data Docs",
    )
    return state


def _summarize_fault(what: str) -> str:
    """The expectations that do not hold, without the example rows, which are indented by five spaces or more."""
    return "; ".join(line.strip() for line in what.splitlines() if not line.startswith(" " * 5))
