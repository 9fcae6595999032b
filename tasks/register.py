"""register: creates one MLflow model version with its report."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.store import layout
from hone.store.artifact import Artifact
from hone.tracking.links import build_url, run_route
from tasks.stage import get_artifact, run_stage, stage_task


@stage_task("register", retries=3, timeout_seconds=3600)
def register(
    config: RunConfig,
    ingest: Artifact,
    curate: Artifact,
    validate: Artifact,
    tokenize: Artifact,
    train: Artifact,
    evaluate: Artifact,
    base: Artifact | None = None,
) -> State[Artifact]:
    """Register the model version. The UI shows links to it and to the report."""
    stages = (ingest, curate, validate, tokenize, train, evaluate)
    inputs = {"config": config, "base": base} | {artifact.stage: artifact for artifact in stages}
    state = run_stage("register", inputs)
    version = get_artifact(state)
    facts, report = version.facts(), version.path / layout.REPORT
    create_link_artifact(report.as_uri(), "Report", key=f"report-{config.name}", description="The run's report")
    create_markdown_artifact(_summary(facts, report), key=f"version-{config.name}", description="The model version")
    return state


def _summary(facts: dict[str, str], report: Path) -> str:
    return "\n".join(
        (
            f"# {facts['model']} version {facts['version']}",
            f"- alias `{facts['alias']}`",
            f"- MLflow run `{facts['run_id']}` in {_run_link(facts)}",
            f"- report [{report.name}]({report.as_uri()})",
        )
    )


def _run_link(facts: dict[str, str]) -> str:
    """A link to the run's page if MLflow is a server, else the store that contains it."""
    url = build_url(facts["tracking_uri"], run_route(facts["experiment_id"], facts["run_id"]))
    return f"[MLflow]({url})" if url else f"`{facts['tracking_uri']}` (`hone up` serves it)"
