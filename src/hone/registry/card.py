"""The model card: a README.md in Hugging Face's format, rendered from the run's artifacts.

The front matter follows https://huggingface.co/docs/hub/model-cards; the text is the template card.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hone.display import escape_cell, escape_markdown
from hone.evaluation.report.figures import NO_ROW_DIFFERS, has_width
from hone.evaluation.report.headline import describe_verdict
from hone.evaluation.report.report_benchmarks import describe_benchmarks
from hone.evaluation.report.report_bias import describe_all
from hone.evaluation.report.report_rivals import describe_rivals
from hone.models.locate import BaseModel
from hone.objectives.base import Objective
from hone.splits import SPLITS
from hone.store import layout
from hone.store.artifact import Artifact

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

WEAKEST = 8
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_NAMES = {"macro_f1": "f1", "micro_f1": "f1", "entity_f1": "f1"}


def render_card(
    artifacts: Mapping[str, Artifact],
    *,
    base: BaseModel,
    objective: Objective,
    adapter: bool,
    model_name: str,
    alias: str,
    max_length: int,
    example: Mapping[str, str],
    config: str,
    lineage: Mapping[str, str],
    metrics: Mapping[str, Any],
    population: Sequence[str],
) -> str:
    """The card's text. `config` is the resolved YAML, `example` a row of inputs, `lineage` for the last table.

    `metrics` is the content of metrics.json, `population` the sentences on the rows that were measured.
    """
    from huggingface_hub import ModelCard

    tree = yaml.safe_load(config)
    body = (
        _environment()
        .get_template("card.md")
        .render(
            name=tree["name"],
            pipeline=objective.pipeline,
            outputs=list(objective.outputs),
            base={"id": base.base, "revision": base.revision, "licence": base.licence, "code": base.code},
            adapter=adapter,
            method=tree["method"]["kind"],
            model_name=model_name,
            alias=alias,
            max_length=max_length,
            windows=hasattr(objective, "stride"),
            example=_format_example(example),
            settings=yaml.safe_dump({part: tree[part] for part in ("method", "training")}, sort_keys=False).strip(),
            training=artifacts["train"].facts(),
            lineage=sorted(lineage.items()),
            population=population,
            **_collect_data(artifacts),
            **_collect_results(metrics),
        )
    )
    head = build_front_matter(tree["name"], base, objective.pipeline, adapter, metrics).to_yaml()
    return str(ModelCard(f"---\n{head}\n---\n\n{body}"))


def build_front_matter(
    name: str, base: BaseModel, pipeline: str, adapter: bool, metrics: Mapping[str, Any]
) -> ModelCardData:
    """The metadata that the Hub reads: licence, base model, pipeline, tags, and test results (model-index)."""
    from huggingface_hub import EvalResult, ModelCardData

    results = _list_results(metrics)
    figures = list(dict.fromkeys(metric for part, metric, _ in results if not part))
    hub_id = base.base if _HUB_ID.fullmatch(base.base) else None
    return ModelCardData(
        license=base.licence.lower() or "unknown",
        base_model=hub_id,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=pipeline,
        tags=["hone", pipeline, *([f"base_model:{'adapter' if adapter else 'finetune'}:{hub_id}"] if hub_id else [])],
        metrics=[_HUB_NAMES.get(metric, metric) for metric in figures],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=pipeline,
                dataset_type=name,
                dataset_name=f"{name}, {part}" if part else name,
                dataset_config=part or None,
                dataset_split="test",
                metric_type=_HUB_NAMES.get(metric, metric),
                metric_name=metric,
                metric_value=value,
            )
            for part, metric, value in results
        ],
    )


def _list_results(metrics: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """The model's figures on all test rows, then the main metric on each slice and group: part, metric and value."""
    main = metrics["main_metric"]
    whole = [("", name, figure["value"]) for name, figure in metrics["systems"]["model"].items() if name != "ece"]
    parts = {
        **{column: entry["judged"] for column, entry in (metrics.get("groups") or {}).items()},
        **metrics["slices"],
    }
    return whole + [
        (f"{column}: {part['name']}", main, part["model"][main]["value"])
        for column, rows in parts.items()
        for part in rows
    ]


def list_weakest_slices(metrics: Mapping[str, Any], min_rows: int = 5) -> list[tuple[str, dict[str, Any]]]:
    """The slices of at least `min_rows` rows with the worst main metric, worst first, at most 8."""
    main = metrics["main_metric"]
    sign = -1 if metrics["measures"][main]["lower"] else 1
    slices = [
        (column, part) for column, parts in metrics["slices"].items() for part in parts if part["rows"] >= min_rows
    ]
    return sorted(slices, key=lambda entry: sign * entry[1]["model"][main]["value"])[:WEAKEST]


def _collect_data(artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    curated, validated = artifacts["curate"].facts(), artifacts["validate"]
    tokens, files = artifacts["tokenize"].facts()["splits"], validated.manifest()["files"]
    classes = [(split, curated["classes"][split]) for split in SPLITS if split in curated["classes"]]
    return {
        "ingest": artifacts["ingest"].facts(),
        "funnel": curated["funnel"],
        "rows": {split: tokens[split]["rows"] for split in SPLITS},
        "digests": [(split, files[layout.rows_file(split)]["sha256"]) for split in SPLITS],
        "quarantined": validated.facts()["quarantined"],
        "classes": classes,
        "labels": sorted({label for _, counts in classes for label in counts}),
    }


def _collect_results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    systems, main = metrics["systems"], metrics["main_metric"]
    return {
        "results": metrics,
        "main_metric": main,
        "verdict": describe_verdict(metrics),
        "metrics": list(systems["model"]),
        "systems": list(systems.items()),
        "comparisons": list(metrics["comparisons"].items()),
        "rivals": describe_rivals(metrics),
        "benchmarks": describe_benchmarks(metrics),
        "weakest": list_weakest_slices(metrics),
        "bias": describe_all(metrics),
    }


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "cell": lambda value: escape_cell(str(value)),
        "plain": lambda value: escape_markdown(str(value)),
        "interval": _interval,
        "reasons": _reasons,
    }
    environment.filters["difference_interval"] = _difference_interval
    return environment


def _interval(figure: Mapping[str, float] | None) -> str:
    """`0.912 [0.893, 0.930]`, without an interval if it has no width; a dash if a system has no such figure."""
    if not figure:
        return "-"
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if has_width(figure["low"], figure["high"]) else ""
    return f"{figure['value']:.3f}{interval}"


def _difference_interval(comparison: Mapping[str, Any]) -> str:
    """` [+0.0210, +0.0930]`, or `, no row differs`."""
    if has_width(comparison["low"], comparison["high"]):
        return f" [{comparison['low']:+.4f}, {comparison['high']:+.4f}]"
    return "" if has_width(0, abs(comparison["difference"])) else f", {NO_ROW_DIFFERS}"


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count:,}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))


def _format_example(example: Mapping[str, str]) -> str:
    """The argument of `predict` as Python code: a list of texts for a single input, else a DataFrame."""
    if len(example) == 1:
        return "".join(f'["{_quote(text)}"]' for text in example.values())
    columns = ", ".join(f'"{name}": ["{_quote(text)}"]' for name, text in example.items())
    return f"pd.DataFrame({{{columns}}})"


def _quote(text: str) -> str:
    """`text` escaped for double quotes in Python, on one line of at most 100 characters; JSON is not cut."""
    line = " ".join(text.split())
    return json.dumps(line if line[:1] in ("[", "{") else line[:100], ensure_ascii=False)[1:-1].replace("```", "'''")
