"""register: creates one MLflow model version with its report, or finds the existing one."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import hone
from hone.config.file import dump_config
from hone.config.parts import Part
from hone.config.sections import RunConfig
from hone.curation import STEPS
from hone.display import mask_secrets
from hone.environment import Home, current_user, home
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.pipeline.stage import Job, Stage, build_part, get_module
from hone.pipeline.stages.train import training_run
from hone.rewriting import Rewriter
from hone.store import layout
from hone.store.artifact import Artifact, Product
from hone.tracking.links import build_url, run_route, version_route
from hone.tracking.reader import SCHEME, describe_fault, has_run, list_lineage
from hone.tracking.version_tags import SWEPT

if TYPE_CHECKING:
    from hone.tracking.run_log import RunLog

GIT_COMMIT = "hone.git_commit"
SERVER = "tracking server"  # an input of the recipe
OWN_SERVER = "the data folder"


def _make(job: Job) -> Product:
    from hone.evaluation.report.report import Origin, render
    from hone.registry.register import register
    from hone.tracking import run_log

    config, base, commit = job.config, job.base(), _git_commit()
    objective, model_name = build_part(OBJECTIVES, config.objective), config.registration.model or config.name
    origin = Origin(current_user(), commit.get(GIT_COMMIT, ""), hone.__version__, base.licence, model_name)
    ancestors = list_lineage(job.home.tracking_uri, config.model.base)
    with run_log.training_run(**training_run(job, job.inputs["train"].key)) as run:
        return register(
            job.out,
            artifacts=job.inputs,
            render_report=partial(
                render, config.name, job.inputs, run.links() | _data_docs_link(job, run), ancestors, origin, objective
            ),
            base=base,
            objective=objective,
            method=build_part(METHODS, config.method),
            tracking_uri=job.home.tracking_uri,
            run_id=run.run_id,
            model_name=model_name,
            alias=config.registration.alias,
            config=dump_config(config),
            tags=commit | dict(job.tags) | _sweep_tags(job),
            rewriters=[step for _, step in _list_rewriters(config)],
            example_row=config.registration.example_row,
            on_progress=job.on_progress,
        )


def _sweep_tags(job: Job) -> dict[str, str]:
    """The values that a sweep chose, here or for an earlier version (`sweep.reuse`)."""
    reused = job.config.sweep.reused
    if "sweep" not in job.inputs:
        return {SWEPT: json.dumps(reused), "hone.sweep_reused": "true"} if reused else {}
    tried = job.inputs["sweep"]
    facts = tried.facts()
    best, metric = facts["best"], facts["metric"]["metric"]
    return {
        SWEPT: json.dumps(best["changes"]),
        "hone.sweep_digest": tried.digest,
        "hone.sweep_trials": str(tried.rows),
        "hone.sweep_best": f"trial {best['number']}, valid_{metric} {best['value']:.6g}",
        "hone.sweep_run": facts["run_id"],
    }


def _data_docs_link(job: Job, run: RunLog) -> dict[str, str]:
    """The Data Docs among the run's files in MLflow; in the store if MLflow is no server."""
    validated = job.inputs["validate"]
    url = build_url(job.home.tracking_uri, run_route(run.experiment_id, run.run_id, layout.DATA_DOCS))
    return {"Data Docs": url or (validated.path / validated.facts()["data_docs"]).as_uri()}


def _describe_fault(artifact: Artifact) -> str:
    facts, uri = artifact.facts(), _find_server(artifact)
    model, number = facts["model"], facts["version"]
    fault = describe_fault(uri, model, number)
    if not fault and not has_run(uri, facts["run_id"]):
        return f"the run of version {number} of {model} was deleted in MLflow"
    return fault


def _name_server(data: Home) -> str:
    """The tracking server's URI without its password; OWN_SERVER for the data folder's own, wherever the folder is."""
    return OWN_SERVER if data.artifact_root else mask_secrets(data.tracking_uri)


def _find_server(artifact: Artifact) -> str:
    """The URI of the tracking server that has the version: of the data folder where it is now, or with the password."""
    name = artifact.manifest()["recipe"]["inputs"].get(SERVER) or artifact.facts()["tracking_uri"]
    if name == OWN_SERVER:
        return Home(artifact.path.parents[2]).tracking_uri
    current_uri = home().tracking_uri
    return current_uri if mask_secrets(current_uri) == name else name


def _describe(artifact: Artifact) -> str:
    facts = artifact.facts()
    model, number = facts["model"], facts["version"]
    url = build_url(facts["tracking_uri"], version_route(model, number)) or f"{SCHEME}{model}/{number}"
    return f"{model} version {number}, alias {facts['alias']}: {url}"


def _git_commit() -> dict[str, str]:
    """The tag with the commit of the repository that the run was started in, `-dirty` if files were changed since."""
    git = ("git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    try:
        result = subprocess.run(git, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {}
    return {GIT_COMMIT: result.stdout.strip()}


def _list_rewriters(config: RunConfig) -> list[tuple[Part, Rewriter]]:
    """The curation steps that the served model applies too: what configures each, and the step."""
    steps = [(part, build_part(STEPS, part)) for part in config.curation.steps]
    return [(part, step) for part, step in steps if isinstance(step, Rewriter)]


def _config(config: RunConfig) -> dict[str, Any]:
    sections = dict.fromkeys(("name", "registration", "model", "objective", "method"), True)
    rewriters = [part.model_dump() for part, _ in _list_rewriters(config)]
    return config.model_dump(include=sections | {"tokenization": {"max_length"}}) | (
        {"curation": {"steps": rewriters}} if rewriters else {}
    )


REGISTER = Stage(
    make=_make,
    config=_config,
    code=lambda c: [
        *("hone.registry.register", "hone.evaluation.report.report", "hone.methods.adapters"),
        get_module(OBJECTIVES, c.objective),
        *(get_module(STEPS, part) for part, _ in _list_rewriters(c)),
    ],
    libraries=lambda _: ["mlflow", "py3langid"],
    inputs=("train", "evaluate"),
    optional_inputs=("sweep", "judge"),
    needs_base=True,
    files=(
        *(f"evaluation/report/{name}" for name in ("report.html", "report_parts.html", "report.css", "report.js")),
        *("registry/card.md", "registry/served/served.py"),
    ),
    external_digests=lambda job: {SERVER: _name_server(job.home)},
    stale_reason=_describe_fault,
    describe=_describe,
    list_warnings=lambda artifact: list(artifact.facts().get("warnings", ())),
)
