"""monitor: recent inputs against the rows a version was made from; what is found is shown, kept and announced."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from hone.config.file import parse_config
from hone.config.parts import Part
from hone.config.sections import RunConfig
from hone.drift import monitor, report
from hone.drift.check import Verdict
from hone.drift.episodes import Episode, episode, remember
from hone.environment import home
from hone.errors import ConfigError, ModelError
from hone.promotion.reconcile import models_with_champion
from hone.tracking.links import config_of, current, run_link
from hone.tracking.reader import Version
from tasks.runtime.events import tell
from tasks.runtime.retries import RETRIES


@dataclass(frozen=True)
class Checked:
    """A version, what the check says of it, in which episode of drift, and where that is kept."""

    version: Version
    verdict: Verdict
    episode: Episode
    link: str


@task(name="monitored", persist_result=False, **RETRIES)
def monitored() -> list[str]:
    """The models whose champion's own configuration says where recent inputs are."""
    uri, found = home().tracking_uri, []
    for model in models_with_champion(uri):
        with suppress(ModelError):  # a champion that Hone did not make
            version = current(uri, model)
            if version and (config_of(uri, version).get("monitoring") or {}).get("inputs"):
                found.append(model)
    return found


@task(name="check", task_run_name="check {model}", persist_result=False, **RETRIES)
def check(model: str, config: RunConfig | None, inputs: Part | None) -> Checked:
    """Compare recent inputs with the memory of the model's standing version, and keep what comes of it in MLflow.

    Without a configuration it is the version's own; without inputs they are those of its section monitoring.
    """
    data = home()
    version = current(data.tracking_uri, model)
    if version is None:
        raise ModelError("has no version", where=f"model {model}", fix="Register one: hone run CONF.")
    config = config or parse_config(config_of(data.tracking_uri, version), version.uri)
    source = inputs or config.monitoring.inputs
    if source is None:
        fix = "Set monitoring.inputs in the configuration, or give inputs."
        raise ConfigError("says not where recent inputs are", where=f"model {model}", fix=fix)
    verdict = monitor.check(version, config, source, data)
    now = episode(version.tags, verdict.decision)
    page = report.page(version, verdict, now.number)
    tags = {"hone.flow_run_id": str(flow_run.id or "")}
    run_id = report.log(data.tracking_uri, data.artifact_root, version, verdict, page, tags)
    _show(version.name, verdict, page)
    return Checked(version, verdict, now, run_link(data.tracking_uri, run_id))


@task(name="announce", task_run_name="announce {checked.version.name}", persist_result=False)
def announce(checked: Checked, config: str) -> None:
    """Emit `hone.drift.detected` where an episode begins, and remember its state: once, however many checks follow.

    The event comes before the memory of it: what is interrupted in between is announced again, under the same id,
    and Prefect takes an event of one id once.
    """
    version, verdict = checked.version, checked.verdict
    if checked.episode.begins:
        tell(
            "hone.drift.detected",
            version.name,
            what=f"{version.name} version {version.version} is asked other things than it was trained for",
            why=", ".join(verdict.drifted),
            link=checked.link,
            figures={finding.name: finding.adjusted for finding in verdict.findings},
            key=checked.episode.key(version),
            version=version.version,
            episode=checked.episode.number,
            config=config,
        )
    remember(home().tracking_uri, version, verdict.decision, checked.episode)


def _show(model: str, verdict: Verdict, page: str) -> None:
    """The table and the page in the Prefect UI, whose keys have lower-case letters, digits and dashes."""
    key = re.sub(r"[^a-z0-9]+", "-", f"drift-{model}".lower()).strip("-")
    if verdict.findings:
        create_table_artifact(report.table(verdict), key=f"{key}-tests", description=f"Drift of {model}")
    create_markdown_artifact(page, key=key, description=f"Drift of {model}: {verdict.decision}")
