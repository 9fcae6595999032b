"""A registered version in one line, for the final state of a run."""

from __future__ import annotations

from hone.evaluation.report import figures
from hone.evaluation.report.report_results import measured, verdict
from hone.store import layout
from hone.store.artifact import Artifact


def summarize_version(registered: Artifact, evaluated: Artifact) -> str:
    """`demo version 3, 68.8% (+23.3 over nearest neighbours)`, from the artifacts of register and evaluate."""
    facts = registered.facts()
    judged = verdict(measured(evaluated.read_json(layout.METRICS)))
    text = f"{facts['model']} version {facts['version']}, {figures.shown(judged['figure'])}"
    rival = judged["rival"]
    if not rival:
        return text
    difference, share, name = rival["difference"], rival["share"], figures.within_sentence(rival["name"])
    if difference < 0:
        return f"{text} ({figures.amount(difference, share)} worse than {name})"
    return f"{text} ({figures.points(difference, share)} over {name})"
