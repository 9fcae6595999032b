"""The run's report: one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hone.curation.account import describe_groups
from hone.evaluation.report import (
    figures,
    report_answers,
    report_benchmarks,
    report_bias,
    report_champion,
    report_checks,
    report_data,
    report_judge,
    report_results,
    report_rivals,
    report_sweep,
)
from hone.evaluation.report.figures import View
from hone.evaluation.report.population import describe_population
from hone.evaluation.report.report_champion import Registered
from hone.splits import TEST
from hone.store import layout
from hone.store.artifact import Artifact
from hone.store.layout import CONFIG

if TYPE_CHECKING:
    from hone.objectives.base import Objective
    from hone.tracking.reader import Version

STAGES = (
    "ingest",
    "curate",
    "base",
    "validate",
    "tokenize",
    "train",
    "sweep",
    "rivals",
    "benchmarks",
    "evaluate",
    "judge",
)
HERE = Path(__file__).parent
SOURCES = 3  # names of sources at the head of the page; the section on rows has the others


@dataclass(frozen=True)
class Origin:
    """Who registers a model under which name, with which commit of the project and version of Hone; '' if unknown.

    `licence` is that of the base model.
    """

    user: str = ""
    commit: str = ""
    hone: str = ""
    licence: str = ""
    model: str = ""


def render(
    name: str,
    artifacts: Mapping[str, Artifact],
    links: Mapping[str, str],
    ancestors: Sequence[Version] = (),
    origin: Origin = Origin(),
    objective: Objective | None = None,
    registered: Registered | None = None,
) -> str:
    """The report of a run as one HTML file that fetches nothing.

    `artifacts` are those of the stages ingest to evaluate, by stage; `links` are titles and addresses (http, https,
    file, or a path) of related pages, shown at the top; `ancestors` are the model version that is the base model and
    the versions it comes from, newest first; `objective` gives the texts of right answers and of changed ones, which
    are left out without it; `registered` is the version that the model became. The same arguments give the same bytes.
    """
    stages = [stage for stage in STAGES if stage in artifacts]
    manifests = {stage: artifacts[stage].manifest() for stage in stages}
    facts = {stage: manifest["facts"] for stage, manifest in manifests.items()}
    paths = {stage: artifacts[stage].path for stage in stages}
    config_text = (paths["evaluate"] / CONFIG).read_text("utf8")
    config = yaml.safe_load(config_text) or {}
    metrics = report_results.measured(_read_json(paths["evaluate"] / layout.METRICS))
    script = (HERE / "report.js").read_text("utf8")
    return (
        _environment()
        .get_template("report.html")
        .render(
            name=name,
            links=[_link(title, address) for title, address in links.items()],
            style=Markup((HERE / "report.css").read_text("utf8")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode("utf8")).digest()).decode(),
            about=_about(config, manifests),
            origin=_origin(origin, config, facts["ingest"]),
            version=_version(registered),
            **_champion_views(registered, metrics, paths, objective),
            promote=f"hone promote {shlex.quote(origin.model)}" if origin.model else "",
            **_data_views(facts, manifests, paths, config),
            **_result_views(metrics, facts),
            sweep=report_sweep.sweep(_read_json(paths["sweep"] / layout.SWEEP)) if "sweep" in paths else None,
            judge=report_judge.judge(_read_json(paths["judge"] / layout.JUDGE) if "judge" in paths else None),
            best=report_answers.list_best_answers(
                paths["evaluate"] / layout.PREDICTIONS, paths["validate"] / layout.rows_file(TEST), objective
            ),
            speed=report_results.speed(_read_json(paths["evaluate"] / layout.SPEED)),
            lineage=[_lineage(stage, manifests, artifacts[stage]) for stage in stages],
            ancestors=[_ancestor(version) for version in ancestors],
            versions=_versions(manifests),
            config_text=config_text,
        )
    )


def _data_views(
    facts: Mapping[str, View], manifests: Mapping[str, View], paths: Mapping[str, Path], config: View
) -> View:
    refused = paths["ingest"] / layout.REFUSED
    history = report_data.read_history(paths["train"] / layout.HISTORY)
    return {
        "funnel": report_data.funnel(facts["ingest"], facts["curate"], facts["validate"], refused),
        "splits": report_data.splits(facts["tokenize"], facts["curate"]),
        "groups": describe_groups(facts["curate"].get("groups", {})),
        "validation": report_checks.validation(facts["validate"]),
        "tokens": report_data.tokens(facts["tokenize"], (config.get("tokenization") or {}).get("max_length")),
        "training": report_data.training(facts["train"], history, manifests["train"]["files"]),
    }


def _result_views(metrics: View, facts: Mapping[str, View]) -> View:
    trained_on = (facts["curate"].get("classes") or {}).get("train") or {}
    return {
        "metrics": metrics,
        "verdict": report_results.verdict(metrics),
        "population": describe_population(facts, metrics),
        "dot_plots": report_results.dot_plots(metrics),
        "forest": report_results.forest(metrics),
        "classes": report_results.classes(metrics, trained_on),
        "confusion": report_results.confusion(metrics),
        "calibration": report_results.calibration(metrics),
        "slices": report_results.slices(metrics),
        "bias": report_bias.groups(metrics),
        "flips": report_bias.flips(metrics),
        "errors": report_results.errors(metrics),
        "rivals": report_rivals.rivals(metrics),
        "benchmarks": report_benchmarks.benchmarks(metrics),
        "benchmarks_left_out": report_benchmarks.list_left_out(metrics),
    }


@cache
def _environment() -> Environment:
    """A Jinja environment that escapes every value and raises for an undefined name."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in (
        "count",
        "counted",
        "percent",
        "interval",
        "points",
        "amount",
        "amount_interval",
        "shown",
        "p_value",
        "number",
        "quantity",
        "duration",
        "size",
        "difference_interval",
        "words",
        "within_sentence",
    ):
        environment.filters[name] = getattr(figures, name)
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """An escaped identifier that may wrap after its underscores."""
    return Markup(str(escape(name)).replace("_", "_<wbr>"))


def _read_json(path: Path) -> View:
    content: View = json.loads(path.read_text("utf8"))
    return content


def _champion_views(
    registered: Registered | None, metrics: View, paths: Mapping[str, Path], objective: Objective | None
) -> View:
    """The comparison with the champion, or the sentence on why there is none."""
    reason = report_champion.explain_missing(registered, metrics) if registered else ""
    if registered is None or reason:
        return {"champion": None, "no_champion": reason}
    answers, rows = paths["evaluate"] / layout.PREDICTIONS, paths["validate"] / layout.rows_file(TEST)
    comparison = report_champion.compare_with_champion(registered, metrics, answers, rows, objective)
    return {"champion": comparison, "no_champion": ""}


def _version(registered: Registered | None) -> View | None:
    """The model version of the report, as a link with its alias."""
    if registered is None:
        return None
    return {**_link(f"{registered.model} version {registered.version}", registered.url), "alias": registered.alias}


def _link(title: str, address: str) -> View:
    """A link with `safe`: whether a browser may follow it; other addresses (javascript:) are shown as text."""
    scheme, colon, _ = address.partition(":")
    safe = not colon or scheme.lower() in ("http", "https", "file") or "/" in scheme
    return {"title": title, "address": address, "safe": safe}


def _about(config: View, manifests: Mapping[str, View]) -> View:
    """The line under the run's name: base model, objective, method and time."""
    kinds = {section: (config.get(section) or {}).get("kind", "") for section in ("objective", "method")}
    model = config.get("model") or {}
    scratch = model.get("scratch")
    base = f"{scratch['architecture']} from scratch" if scratch else str(model.get("base", ""))
    code = f"runs the code of {model['trust_code']}" if model.get("trust_code") else ""
    return {
        **kinds,
        "base": base.rpartition(":")[2],
        "code": code,
        "created": _format_time(manifests["evaluate"]["created"]),
    }


def _origin(origin: Origin, config: View, ingest: View) -> list[tuple[str, str]]:
    """The facts under the run's name, as (title, text)."""
    kind = ((config.get("ingest") or {}).get("source") or {}).get("kind", "")
    largest = sorted(ingest["sources"].items(), key=lambda source: -source[1])
    names = ", ".join(figures.clip(source, 60) for source, _ in largest[:SOURCES])
    more = f" and {len(largest) - SOURCES} more" if len(largest) > SOURCES else ""
    commit, dirty, _ = origin.commit.partition("-dirty")
    facts = [
        ("Rows from", f"{kind}: {names}{more}" if kind and names else kind or names),
        ("Licence of the base model", origin.licence),
        ("Registered by", origin.user),
        ("Commit", f"{commit[:12]}{', with uncommitted changes' if dirty else ''}"),
        ("Hone", origin.hone),
    ]
    return [(title, text) for title, text in facts if text]


def _format_time(created: str) -> str:
    return created.replace("T", " ").replace("Z", " UTC")


def _lineage(stage: str, manifests: Mapping[str, View], artifact: Artifact) -> View:
    """One stage of the lineage: its digests, and the stage that each of its inputs came from."""
    manifest = manifests[stage]
    recipe = manifest["recipe"]
    by_digest = {other["digest"]: name for name, other in manifests.items()}
    return {
        "stage": stage,
        "digest": artifact.digest,
        "key": artifact.key,
        "rows": artifact.rows,
        "created": _format_time(manifest["created"]),
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "files": len(manifest["files"]),
        "inputs": [(name, digest, by_digest.get(digest, "")) for name, digest in recipe["inputs"].items()],
        "code": sorted(recipe["code"].items()),
        "config": yaml.safe_dump(recipe["config"], sort_keys=False, allow_unicode=True) if recipe["config"] else "",
    }


def _ancestor(version: Version) -> View:
    """An earlier model version: its run, its data, and the base model it was tuned from."""
    tags = version.tags
    digests = {"Digest of the data": "hone.data_digest", "Digest of the model": "hone.model_digest"}
    return {
        "uri": version.uri,
        "sources": tags.get("hone.data_sources", ""),
        "base": tags.get("hone.base_model", ""),
        "run": version.run_id,
        "digests": [(title, tags[tag]) for title, tag in digests.items() if tags.get(tag)],
    }


def _versions(manifests: Mapping[str, View]) -> list[tuple[str, str]]:
    """The library versions that the stages were made with; several for one library if stages differ."""
    versions_by_library: dict[str, set[str]] = {}
    for manifest in manifests.values():
        for library, version in manifest["recipe"]["versions"].items():
            versions_by_library.setdefault(library, set()).add(str(version))
    return [(library, ", ".join(sorted(versions))) for library, versions in sorted(versions_by_library.items())]
