"""curate: cleans, deduplicates and splits the rows."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store.artifact import Artifact
from tasks.runtime.pages import publish
from tasks.stage import get_artifact, run_stage, stage_task


@stage_task("curate")
def curate(config: RunConfig, ingest: Artifact) -> State[Artifact]:
    """Curate the rows into train, validation and test splits. The UI shows the funnel as a table."""
    state = run_stage("curate", {"config": config, "ingest": ingest})
    facts = get_artifact(state).facts()
    table = [
        {"step": step["step"], "reason": reason, "rows dropped": count, "rows left": step["after"]}
        for step in facts["funnel"]
        for reason, count in (step["dropped"] or {"": 0}).items()
    ]
    table += [
        {"step": "split", "reason": name, "rows dropped": 0, "rows left": n} for name, n in facts["splits"].items()
    ]
    publish(create_table_artifact, table, key=f"funnel-{config.name}", description=f"Rows kept of {ingest.rows:,}")
    return state
