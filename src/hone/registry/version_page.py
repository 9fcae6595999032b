"""Writes what MLflow shows of a registered version: its tags, its description, and those of its model and its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hone.evaluation.report import figures
from hone.evaluation.report.headline import describe_verdict, summarize_verdict
from hone.evaluation.report.report_champion import Champion
from hone.evaluation.report.report_results import measured
from hone.registry import page
from hone.store import layout
from hone.tracking.aliases import CHAMPION
from hone.tracking.links import run_route, version_route
from hone.tracking.version_tags import fold_digests

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

VERDICT = "hone.verdict"
FORMER = "hone.test."  # earlier releases had a tag for each test metric and each end of its interval


def build_result_tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The verdict and the main figure: `hone.verdict`, `hone.accuracy`."""
    main = metrics["main_metric"]
    figure = measured(metrics)["systems"]["model"][main]
    return {VERDICT: summarize_verdict(metrics), f"hone.{main}": figures.shown(figure)}


def set_tags(
    client: MlflowClient, version: ModelVersion, lineage: Mapping[str, str], results: Mapping[str, str]
) -> None:
    """Set the version's tags: `results` as they are now; `lineage` only where the version has none, for it is its own.

    Tags of an earlier release are brought to the form of this one: digests in one tag, none for each test metric.
    """
    own = {name: value for name, value in fold_digests(version.tags).items() if not name.startswith(FORMER)}
    wanted = {**lineage, **own, **results}
    for name, value in wanted.items():
        if version.tags.get(name) != value:
            client.set_model_version_tag(version.name, version.version, name, value)
    for name in set(version.tags) - set(wanted):
        client.delete_model_version_tag(version.name, version.version, name)


def describe_results(version: ModelVersion, metrics: Mapping[str, Any], champion: Champion | None) -> list[str]:
    """Paragraphs: the verdict, the figures beside the baselines' and the champion's, and on what rows those were."""
    verdict = f"**{describe_verdict(metrics)}**"
    if champion is None or champion.version == str(version.version) or not champion.metrics:
        return [verdict, page.render_figures(metrics)]
    title = f"[champion, version {champion.version}]({version_route(version.name, champion.version)})"
    origin = "the same test rows" if champion.same_rows else "the test rows that it was registered with"
    return [
        verdict,
        page.render_figures(metrics, champion.metrics, title),
        f"The champion's figures are from {origin}; `hone promote {version.name}` compares both on the same rows.",
    ]


def list_links(run: Run, version: ModelVersion, flow_run_url: str) -> dict[str, str]:
    """The pages that belong to a version. Those of MLflow are relative, so that they outlive its address."""
    experiment, run_id = run.info.experiment_id, run.info.run_id
    return {
        "Report": run_route(experiment, run_id, layout.REPORT),
        "MLflow run": run_route(experiment, run_id),
        "Prefect run": flow_run_url,
    }


def set_description(client: MlflowClient, version: ModelVersion, head: str, sections: Mapping[str, str]) -> None:
    """Write the version's description; its notes and its promotion stay."""
    text = page.update_page(version.description or "", head, sections)
    if text != version.description:
        client.update_model_version(version.name, version.version, text)


def describe_run(client: MlflowClient, run: Run, version: ModelVersion, results: list[str], commit: str) -> None:
    """Write the results and a link to the version into the run's description, and its commit as MLflow's source."""
    from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_RUN_NOTE

    link = f"[{version.name} version {version.version}]({version_route(version.name, str(version.version))})"
    note = "\n\n".join([*results, f"Registered as {link}."])
    tags = {MLFLOW_RUN_NOTE: note, MLFLOW_GIT_COMMIT: commit.removesuffix("-dirty")}
    for name, value in tags.items():
        if value and run.data.tags.get(name) != value:
            client.set_tag(run.info.run_id, name, value)


def describe_model(client: MlflowClient, version: ModelVersion, verdict: str, task: str) -> None:
    """Write the registered model's description, if this is its newest version; its notes stay."""
    versions = client.search_model_versions(f"name='{version.name}'")
    if int(version.version) < max(int(other.version) for other in versions):
        return
    link = f"[Version {version.version}]({version_route(version.name, str(version.version))})"
    head = (
        f"{task}, made by Hone.\n\n{link} is the newest: {verdict}\n\n"
        f"Serve `models:/{version.name}@{CHAMPION}`: the version that was promoted last."
    )
    existing = client.get_registered_model(version.name).description or ""
    text = page.update_page(existing, head, {})
    if text != existing:
        client.update_registered_model(version.name, text)
