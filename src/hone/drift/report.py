"""The report of a drift check: a page in Markdown, and a run in MLflow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.display import escape_cell
from hone.drift.check import Verdict
from hone.tracking.client import connect, get_or_create_experiment, translate_errors
from hone.tracking.reader import Version

_HEAD = (
    "| test | figure | effect | p | corrected p | drift | rows then, now | what changed |\n"
    "|---|---|---|---|---|---|---|---|"
)
TITLES = {"drift": "drift", "no drift": "no drift", "too few rows": "too few rows to decide"}


def render_page(version: Version, verdict: Verdict, episode: int) -> str:
    """The report in Markdown."""
    facts = verdict.facts
    lines = [
        f"# {version.name} version {version.version}: {TITLES[verdict.decision]}",
        "",
        f"{facts.get('rows', 0):,} recent rows, {facts.get('sampled', 0):,} of them drawn, {verdict.recent:,} distinct"
        f" ones compared with {verdict.reference:,} of the training; {facts.get('unreadable', 0):,} could not be read."
        + (f" Embeddings are those of {facts['encoder']}." if "encoder" in facts else ""),
    ]
    if verdict.decision == "drift":
        lines += ["", f"Drift by {', '.join(verdict.drifted)}; episode {episode} of this version."]
    if verdict.findings:
        lines += [
            "",
            describe_power(verdict),
            "",
            _HEAD,
            *(f"| {' | '.join(map(escape_cell, row.values()))} |" for row in build_table(verdict)),
        ]
    return "\n".join(lines) + "\n"


def describe_power(verdict: Verdict) -> str:
    """The sentence on what a check of these rows can find, and what it cannot."""
    if verdict.visible is None:
        return "Such a check can miss even many rows that are unlike the training's: too few rows or permutations."
    rows = round(verdict.visible * verdict.recent)
    return (
        f"Such a check finds rows that are unlike any of the training's in 4 of 5 cases if they are at least"
        f" {verdict.visible:.1%} of the recent ones ({rows:,} of {verdict.recent:,}); fewer can go unnoticed."
    )


def build_table(verdict: Verdict) -> list[dict[str, str]]:
    """A row for each test, as plain text."""
    return [
        {
            "test": finding.name,
            "figure": f"{finding.measure} {finding.statistic:.3f}",
            "effect": f"{finding.effect:.1%}",
            "p": f"{finding.p:.4f}",
            "corrected p": f"{finding.adjusted:.4f}",
            "drift": "yes" if finding.drifted else "no",
            "rows then, now": f"{finding.reference:,}, {finding.recent:,}",
            "what changed": finding.note,
        }
        for finding in verdict.findings
    ]


def log_check(
    tracking_uri: str, artifact_root: str, version: Version, verdict: Verdict, text: str, tags: Mapping[str, str]
) -> str:
    """Log the check as a run of the experiment `NAME monitoring`; returns the run's id. Raises ServiceError."""
    from mlflow.entities import Metric, RunTag

    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        experiment = get_or_create_experiment(client, f"{version.name} monitoring", artifact_root)
        run = client.create_run(experiment, run_name=f"version {version.version}: {verdict.decision}")
        run_id, start_time = str(run.info.run_id), run.info.start_time
        figures = {
            f"{_build_metric_name(f.name)}_{kind}": value for f in verdict.findings for kind, value in _list_figures(f)
        }
        metrics = [Metric(name, value, start_time, 0) for name, value in figures.items()]
        version_tags = {"hone.model": version.name, "hone.version": version.version, "hone.decision": verdict.decision}
        client.log_batch(
            run_id, metrics, tags=[RunTag(name, value) for name, value in {**version_tags, **tags}.items()]
        )
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "drift.md").write_text(text, "utf8")
            verdict_json = json.dumps(verdict.as_dict(), ensure_ascii=False, indent=1)
            (Path(scratch) / "drift.json").write_text(verdict_json, "utf8")
            client.log_artifacts(run_id, scratch)
        client.set_terminated(run_id)
    return run_id


def _list_figures(finding: Any) -> list[tuple[str, float]]:
    return [
        ("figure", finding.statistic),
        ("effect", finding.effect),
        ("p", finding.p),
        ("p_corrected", finding.adjusted),
    ]


def _build_metric_name(test: str) -> str:
    return "drift/" + "".join(character if character.isalnum() else "_" for character in test)
