"""monitor: compares recent inputs with a version's training rows; shows, logs and announces the result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from hone.config.file import parse_config
from hone.config.parts import Part
from hone.config.sections import RunConfig
from hone.drift import monitor, report
from hone.drift.champions import load_current_configs
from hone.drift.check import Verdict
from hone.drift.episodes import Episode, next_episode, save_episode
from hone.environment import home
from hone.errors import ConfigError, ModelError
from hone.tracking.links import find_current_version, load_version_config, run_link
from hone.tracking.reader import Version
from tasks.runtime.events import emit_model_event
from tasks.runtime.pages import publish, publish_last
from tasks.runtime.retries import RETRIES


@dataclass(frozen=True)
class CheckResult:
    """A version, the verdict of its drift check, the episode of drift, and where the check is shown.

    `link` leads to the check's run in MLflow, `page` to its page in the Prefect UI; it is '' if there is none.
    """

    version: Version
    verdict: Verdict
    episode: Episode
    link: str
    page: str


@task(
    name="list monitored models",
    task_run_name="list champions with recent inputs",
    persist_result=False,
    **RETRIES,
)
def list_monitored_models() -> list[str]:
    """The models whose champion's configuration has `monitoring.inputs`."""
    configs, damaged = load_current_configs(home().tracking_uri)
    for fault in damaged:
        get_run_logger().warning(str(fault))
    return [version.name for version, config in configs if (config.get("monitoring") or {}).get("inputs")]


@task(name="check drift", task_run_name="check drift of {model}", persist_result=False, **RETRIES)
def check_model(model: str, config: RunConfig | None, inputs: Part | None) -> CheckResult:
    """Compare recent inputs with the reference of the model's current version, and log the verdict in MLflow.

    Args:
        model: The registered model's name.
        config: The configuration; the version's own if None.
        inputs: The source of recent inputs; `monitoring.inputs` of the configuration if None.
    """
    data = home()
    version = find_current_version(data.tracking_uri, model)
    if version is None:
        raise ModelError("has no version", where=f"model {model}", fix="Register one: hone run CONF.")
    config = config or parse_config(load_version_config(data.tracking_uri, version), version.uri)
    source = inputs or config.monitoring.inputs
    if source is None:
        fix = "Set monitoring.inputs in the configuration, or pass `inputs`."
        raise ConfigError("has no source of recent inputs", where=f"model {model}", fix=fix)
    verdict = monitor.check_version(version, config, source, data)
    current_episode = next_episode(version.tags, verdict.decision)
    page = report.render_page(version, verdict, current_episode.number)
    tags = {"hone.flow_run_id": str(flow_run.id or "")}
    run_id = report.log_check(data.tracking_uri, data.artifact_root, version, verdict, page, tags)
    url = _publish(version.name, verdict, page)
    return CheckResult(version, verdict, current_episode, run_link(data.tracking_uri, run_id), url)


@task(
    name="announce drift", task_run_name="announce drift of {checked.version.name} if it begins", persist_result=False
)
def announce_drift(checked: CheckResult, config: str) -> None:
    """Emit `hone.drift.detected` once per episode, when it begins, and save the state of the episode.

    The event is emitted before the state is saved: after an interruption in between, it is emitted again with the same
    id, and Prefect stores an event id once. `config` names the configuration for a retraining, '' the version's own.
    """
    version, verdict = checked.version, checked.verdict
    if checked.episode.begins:
        emit_model_event(
            "hone.drift.detected",
            version.name,
            what=f"{version.name}: recent inputs differ from the training rows of version {version.version}",
            why=f"drift by {', '.join(verdict.drifted)}",
            severity="warning",
            link=checked.page,
            figures={finding.name: finding.adjusted for finding in verdict.findings},
            key=checked.episode.key(version),
            version=version.version,
            episode=checked.episode.number,
            config=config or version.uri,
        )
    save_episode(home().tracking_uri, version, verdict.decision, checked.episode)


def _publish(model: str, verdict: Verdict, page: str) -> str:
    """Create the table and the page in the Prefect UI, and return the page's URL; '' if the server did not answer.

    Keys may have lower-case letters, digits and dashes.
    """
    key = re.sub(r"[^a-z0-9]+", "-", f"drift-{model}".lower()).strip("-")
    if verdict.findings:
        publish(create_table_artifact, report.build_table(verdict), key=f"{key}-tests", description=f"Drift of {model}")
    artifacts: list[object] = []

    def create_page(markdown: str, **about: str) -> None:
        artifacts.append(create_markdown_artifact(markdown, **about))

    publish_last(create_page, page, key=key, description=f"Drift of {model}: {verdict.decision}")
    return f"{PREFECT_UI_URL.value()}/artifacts/artifact/{artifacts[0]}" if artifacts else ""
