"""The decision on a version: as data, in the version's tag and description in MLflow, as Markdown, as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hone.display import escape_cell, escape_markdown
from hone.evaluation.report import figures
from hone.promotion.champion import Standing
from hone.promotion.gates import Gate
from hone.registry import page
from hone.tracking.aliases import CANDIDATE, CHAMPION
from hone.tracking.client import translate_errors
from hone.tracking.links import build_url, run_route, version_route

if TYPE_CHECKING:
    from mlflow import MlflowClient

HERE = Path(__file__).parent
TAG = "hone.promotion"
DECISION = f"{TAG}.decision"
MAX_GATES = 12  # in the version's description, whose length is limited; decision.html has all
MAX_WHY = 500  # characters

Outcome = Literal["passed", "refused", "shadow", "promoted", "put back"]
OUTCOMES: dict[Outcome, str] = {
    "passed": "All gates passed",
    "refused": "Refused",
    "shadow": "Judged without promotion",
    "promoted": "Promoted",
    "put back": "Put back",
}


@dataclass(frozen=True)
class Judged:
    """The rows of a comparison: their file's SHA-256, the numbers of rows and of rows left out, and the figures.

    `comparison` counts the comparisons of the model's versions on these rows, as the journal has them, with this one.
    """

    name: str
    digest: str
    rows: int
    left_out: int
    figures: Mapping[str, Mapping[str, Mapping[str, float]]]
    comparison: int = 1

    @property
    def account(self) -> str:
        """`1,001 rows, 4 left out, comparison 3 on these rows`."""
        return f"{self.rows:,} rows, {self.left_out:,} left out{self.again}"

    @property
    def again(self) -> str:
        """`, comparison 3 on these rows`; empty for the first."""
        return f", comparison {self.comparison} on these rows" if self.comparison > 1 else ""


@dataclass(frozen=True)
class Decision:
    """Candidate against champion: all gates, and the aliases when the comparison began (`start`)."""

    model: str
    version: str
    start: Standing
    policy: str
    test: str
    at: str
    run_id: str
    experiment_id: str
    main_metric: str
    sets: Sequence[Judged]
    gates: Sequence[Gate]
    expires_seconds: int

    @property
    def champion(self) -> str:
        """The version that it was compared with, '' for none."""
        return self.start.champion

    @property
    def passed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def refused(self) -> list[Gate]:
        """The gates that were not passed."""
        return [gate for gate in self.gates if not gate.passed]

    @property
    def reason(self) -> str:
        """One sentence with the decisive gates."""
        if self.refused:
            return "refused by " + "; ".join(describe_gate(gate) for gate in self.refused)
        unclear = [gate.name for gate in self.gates if gate.inconclusive]
        outcome = f"all gates passed, unclear: {', '.join(unclear)}" if unclear else "all gates passed"
        return f"{outcome}: " + "; ".join(describe_gate(gate) for gate in self.gates[:3])

    def figures(self) -> dict[str, Any]:
        """The figures for the journal: the gates' numbers, the rows' digests, and each version's main metric."""
        numbers: dict[str, Any] = {"gates_passed": sum(gate.passed for gate in self.gates), "gates": len(self.gates)}
        for judged in self.sets:
            numbers[f"{judged.name}/digest"] = judged.digest
            numbers[f"{judged.name}/rows"] = judged.rows
            numbers[f"{judged.name}/comparison"] = judged.comparison
            for name, metrics in judged.figures.items():
                numbers[f"{judged.name}/{name}/{self.main_metric}"] = metrics[self.main_metric]["value"]
        for gate in sorted(self.gates, key=lambda gate: gate.passed):
            if gate.figure is not None:
                numbers[_build_name(gate)] = round(gate.figure, 6)
            if gate.p is not None:
                numbers[f"{_build_name(gate)}/p"] = round(gate.p, 6)
        return numbers

    def data(self) -> dict[str, Any]:
        """All fields, with `passed` and `reason`, as values that JSON can hold."""
        return asdict(self) | {"passed": self.passed, "reason": self.reason}


def describe_gate(gate: Gate) -> str:
    """`test: accuracy: better 0.05 [0.01, 0.09], p = 0.012 (p ≤ 0.05)`."""
    name = f"{gate.rows}: {gate.name}" if gate.rows else gate.name
    return f"{name} {format_figure(gate)} ({gate.bound})" if gate.figure is not None else name


def format_figure(gate: Gate) -> str:
    """A gate's figure with its interval and p-value, abbreviated."""
    if gate.figure is None:
        return figures.NONE
    text = figures.number(gate.figure)
    if figures.has_width(gate.low, gate.high):
        text += f" [{figures.number(gate.low)}, {figures.number(gate.high)}]"
    elif gate.low is not None and not figures.has_width(0, abs(gate.figure)):
        text += f", {figures.NO_ROW_DIFFERS}"
    return text + (f", {figures.p_value(gate.p)}" if gate.p is not None else "")


def describe_outcome(gate: Gate) -> str:
    """`yes`, `no` or, for a gate that counts as passed on too few rows, `unclear`."""
    if not gate.passed:
        return "no"
    return "unclear" if gate.inconclusive else "yes"


def render_markdown(decision: Decision, link: str = "") -> str:
    """The decision in Markdown, for the Prefect UI."""
    lines = [
        f"# {decision.model} version {decision.version}: {'all gates passed' if decision.passed else 'refused'}",
        f"Against {_describe_opponent(decision)}, policy `{decision.policy}`.",
        *(f"- {judged.name}: {judged.account}, SHA-256 `{judged.digest}`" for judged in decision.sets),
        "",
        "| gate | rows | observed | required | passed | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for gate in decision.gates:
        name, rows, figure, bound, note = map(
            escape_cell, (gate.name, gate.rows, format_figure(gate), gate.bound, gate.note)
        )
        lines.append(f"| {name} | {rows} | {figure} | {bound} | {_emphasize_outcome(gate)} | {note} |")
    return "\n".join([*lines, "", link])


def render_page(decision: Decision) -> str:
    """The decision as one HTML file that fetches nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (HERE.parent / "evaluation" / "report" / "report.css").read_text("utf8")
    return environment.get_template("decision.html").render(
        decision=decision,
        against=_describe_opponent(decision),
        format_figure=format_figure,
        describe_outcome=describe_outcome,
        number=figures.number,
        has_width=figures.has_width,
        style=Markup(style),
    )


def render_section(decision: Decision, outcome: Outcome) -> str:
    """The section `Promotion` of the version's description: outcome, figures beside the champion's, gates, link."""
    lines = [
        f"**{OUTCOMES[outcome]}**, compared with {_describe_opponent(decision, linked=True)}"
        f" · policy `{decision.policy}` · {decision.at[:16].replace('T', ' ')} UTC",
        "",
        *(_describe_set(judged, decision.main_metric) for judged in decision.sets),
        "",
        page.render_table(
            ("gate", "rows", "observed", "required", "passed"),
            [
                (
                    *map(escape_markdown, (gate.name, gate.rows, format_figure(gate), gate.bound)),
                    _emphasize_outcome(gate),
                )
                for gate in sorted(decision.gates, key=lambda gate: (gate.passed, not gate.inconclusive))[:MAX_GATES]
            ],
        ),
    ]
    route = run_route(decision.experiment_id, decision.run_id, page_path(decision))
    return "\n".join([*lines, "", f"[All {len(decision.gates)} gates]({route})"])


def tag_version(client: MlflowClient, decision: Decision, outcome: Outcome) -> None:
    """Write the decision into the version's tag `hone.promotion.decision` and its description.

    The tags of an earlier decision are removed: those of earlier releases held the gates and digests. Raises
    ServiceError if MLflow does not answer.
    """
    model, number = decision.model, decision.version
    with translate_errors(client.tracking_uri):
        version = client.get_model_version(model, number)
        for name in version.tags:
            if name.startswith(f"{TAG}.") and name != DECISION:
                client.delete_model_version_tag(model, number, name)
        text = page.set_promotion(version.description or "", render_section(decision, outcome))
        client.update_model_version(model, number, text)
        client.set_model_version_tag(model, number, DECISION, outcome)


def mark_promoted(client: MlflowClient, model: str, number: str) -> None:
    """Write into the version's tag and description that it was promoted, where the decision is not at hand."""
    description = client.get_model_version(model, number).description or ""
    section = page.parse_page(description).sections.get(page.PROMOTION, "")
    promoted = section.replace(f"**{OUTCOMES['passed']}**", f"**{OUTCOMES['promoted']}**", 1)
    if promoted != section:
        client.update_model_version(model, number, page.set_promotion(description, promoted))
    client.set_model_version_tag(model, number, DECISION, "promoted")


def mark_put_back(client: MlflowClient, model: str, number: str, why: str) -> None:
    """Write into the version's tag and description that it was the champion and was put back, above the decision."""
    client.set_model_version_tag(model, number, DECISION, "put back")
    description = client.get_model_version(model, number).description or ""
    former = page.parse_page(description).sections.get(page.PROMOTION, "")
    line = f"**{OUTCOMES['put back']}**: {' '.join(why.split())[:MAX_WHY]}"
    client.update_model_version(model, number, page.set_promotion(description, f"{line}\n\n{former}".strip()))


def page_path(decision: Decision) -> str:
    """The path of decision.html among the files of the version's run."""
    # Without the + of the time zone, which is always UTC: MLflow's UI does not find a file by a link with it.
    return f"promotion/{decision.at.partition('+')[0].replace(':', '').replace('.', '')}/decision.html"


def log_page(client: MlflowClient, decision: Decision) -> str:
    """Log decision.html and decision.json to the version's run; returns the page's artifact path."""
    html, data = page_path(decision), json.dumps(decision.data(), ensure_ascii=False, indent=1)
    client.log_text(decision.run_id, render_page(decision), html)
    client.log_text(decision.run_id, data, html.replace(".html", ".json"))
    return html


def version_link(tracking_uri: str, decision: Decision) -> str:
    """The version's page if MLflow is a server, else its URI."""
    url = build_url(tracking_uri, version_route(decision.model, decision.version))
    return url or f"models:/{decision.model}/{decision.version}"


def _describe_opponent(decision: Decision, linked: bool = False) -> str:
    if not decision.champion:
        return "its baselines: there is no champion"
    version = f"version {decision.champion}"
    return f"the champion, {f'[{version}]({version_route(decision.model, decision.champion)})' if linked else version}"


def _describe_set(judged: Judged, metric: str) -> str:
    """`- test, 100 rows: accuracy 0.95 [0.9, 0.99], the champion's 0.4 [0.3, 0.5]`."""
    values = {name: _format_value(values[metric]) for name, values in judged.figures.items() if metric in values}
    champion = f", the champion's {values[CHAMPION]}" if CHAMPION in values else ""
    return f"- {judged.name}, {judged.rows:,} rows{judged.again}: {metric} {values.get(CANDIDATE, '–')}{champion}"


def _format_value(figure: Mapping[str, float]) -> str:
    """`0.95 [0.9, 0.99]`, without an interval that has no width."""
    interval = (
        f" [{figure['low']:.4g}, {figure['high']:.4g}]" if figures.has_width(figure["low"], figure["high"]) else ""
    )
    return f"{figure['value']:.4g}{interval}"


def _emphasize_outcome(gate: Gate) -> str:
    outcome = describe_outcome(gate)
    return outcome if outcome == "yes" else f"**{outcome}**"


def _build_name(gate: Gate) -> str:
    return f"{gate.rows}/{gate.name}" if gate.rows else gate.name
