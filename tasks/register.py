"""register: creates one MLflow model version with its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State

from hone.config.sections import RunConfig
from hone.registry.page import GAP
from hone.store import layout
from hone.store.artifact import Artifact
from hone.tracking.links import build_url, complete_links, run_route, version_route
from tasks.runtime.pages import publish, publish_last
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
    sweep: Artifact | None = None,
    judge: Artifact | None = None,
) -> State[Artifact]:
    """Register the model version. The UI shows its figures and the next step, and links to it and to the report."""
    stages = (ingest, curate, validate, tokenize, train, evaluate)
    optional = {"base": base, "sweep": sweep, "judge": judge}
    state = run_stage("register", {"config": config, **optional} | {artifact.stage: artifact for artifact in stages})
    registered = get_artifact(state)
    files = {
        "Report": (layout.REPORT, registered.path / layout.REPORT),
        "Data Docs": (layout.DATA_DOCS, validate.path / layout.DATA_DOCS),
    }
    facts = registered.facts()
    for title, (file, path) in files.items():
        _publish_file(facts, title, file, path, config.name)
    page = _render_version(facts, files)
    publish_last(
        create_markdown_artifact, page, key=f"version-{config.name}", description=facts["results"][0].strip("*")
    )
    return state


def _publish_file(facts: Mapping[str, Any], title: str, file: str, path: Path, run: str) -> None:
    """Create the artifact of a file of the run: a link to its page in MLflow, or its path if MLflow is no server."""
    key, url = f"{title.lower().replace(' ', '-')}-{run}", _file_url(facts, file)
    if url:
        publish(create_link_artifact, url, title, key=key, description=title)
    else:
        publish(create_markdown_artifact, f"{title}: `{path}`", key=key, description=title)


def _render_version(facts: Mapping[str, Any], files: Mapping[str, tuple[str, Path]]) -> str:
    """The version in Markdown: verdict, figures beside those of baselines and champion, where it is, the next step."""
    model, number, uri = facts["model"], facts["version"], facts["tracking_uri"]
    results = [complete_links(paragraph, uri).replace(GAP, "") for paragraph in facts["results"]]
    pages = {
        "Model version": build_url(uri, version_route(model, number)),
        "MLflow run": build_url(uri, run_route(facts["experiment_id"], facts["run_id"])),
        **{title: _file_url(facts, file) for title, (file, _) in files.items()},
    }
    places = " · ".join(f"[{title}]({url})" for title, url in pages.items() if url)
    if not places:
        lines = [f"MLflow run: `{facts['run_id']}` in `{uri}` (`hone up` serves it)"]
        places = "\n".join(
            f"- {line}" for line in [*lines, *(f"{title}: `{path}`" for title, (_, path) in files.items())]
        )
    return "\n\n".join(
        [
            f"# {model} version {number}",
            *results,
            *facts["population"],
            places,
            f"The version has the alias `{facts['alias']}`. Next: compare it with the champion and promote it, with"
            f" `hone promote {model}` or with the deployment **promote** and the model `{model}`.",
        ]
    )


def _file_url(facts: Mapping[str, Any], file: str) -> str:
    """The page of a file of the version's run in MLflow's UI; '' if MLflow is no server."""
    return build_url(facts["tracking_uri"], run_route(facts["experiment_id"], facts["run_id"], file))
