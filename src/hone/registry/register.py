"""The last stage: registers one MLflow model version with everything needed to trust it, or reuses an existing one.

A step that an earlier, interrupted call completed is not repeated: curves, datasets and metrics are compared with those
of the run, and the logged model and the version are found by their tag `hone.register_key`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError
from hone.methods.method import AdapterMethod, Method
from hone.models.locate import BaseModel
from hone.objectives.base import Objective
from hone.progress import OnProgress, Progress, ignore
from hone.registry import card, reference
from hone.registry.integrity import TAG as FILES
from hone.registry.package import Form, package
from hone.splits import TEST, TRAIN, VALID
from hone.store import layout
from hone.store.artifact import Artifact, Product
from hone.store.digests import digest_of, file_digest
from hone.tracking.client import connect, default_tracking_uri, translate_errors
from hone.tracking.reader import SCHEME
from hone.tracking.run_log import backfill

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

KEY = "hone.register_key"
MLFLOW_CONTEXTS = {TRAIN: "train", VALID: "validation", TEST: "test"}  # split to MLflow's name of the context
DATASET_DIGEST = 36  # characters: MLflow's limit for a dataset digest
SOURCES = 1000  # characters of the tag with the sources' names


@dataclass(frozen=True)
class Candidate:
    """What is to be registered: artifacts by stage, the form in which they are served, and where they come from."""

    artifacts: Mapping[str, Artifact]
    form: Form
    base: BaseModel
    model_name: str
    alias: str
    config: str
    tags: Mapping[str, str]


def version_tags(artifacts: Mapping[str, Artifact], form: Form, base: BaseModel, config: str) -> dict[str, str]:
    """A version's tags: digests of data, config, code, model and targets, and the base model."""
    code = {stage: artifact.manifest()["recipe"]["code"] for stage, artifact in sorted(artifacts.items())}
    parent = {"hone.base_version": base.revision, "hone.parent_run": base.run} if base.base.startswith(SCHEME) else {}
    if base.code:
        parent |= {"hone.remote_code": base.code}
    return parent | {
        "hone.data_sources": ", ".join(sorted(artifacts["ingest"].facts()["sources"]))[:SOURCES],
        "hone.data_digest": artifacts["validate"].digest,
        "hone.config_digest": digest_of(config),
        "hone.code_digest": digest_of(code),
        "hone.base_model": base.base,
        "hone.base_revision": base.revision,
        "hone.base_digest": base.compute_digest(file_digest),
        "hone.base_licence": base.licence,
        "hone.model_digest": artifacts["train"].digest,
        **{f"hone.{name}": digest for name, digest in form.targets.items() if name.endswith("_sha256")},
        KEY: form.key,
    }


def register(
    out: Path,
    *,
    artifacts: Mapping[str, Artifact],
    report: str,
    base: BaseModel,
    objective: Objective,
    method: Method,
    tracking_uri: str,
    run_id: str,
    model_name: str,
    alias: str,
    config: str,
    tags: Mapping[str, str],
    on_progress: OnProgress = ignore,
) -> Product:
    """Register the trained model as a version of `model_name` and point `alias` to it; an existing version is reused.

    `artifacts` are those of the stages ingest to evaluate, `report` is HTML, `config` the resolved YAML, `run_id` the
    training's MLflow run, `tags` further tags of the version (`hone.git_commit`, `hone.flow_run_id`). Writes
    registration.json and report.html. Raises ServiceError if MLflow does not answer, ConfigError for a model name that
    MLflow does not accept, ModelError if a file could run code when it is loaded.
    """
    section = artifacts["tokenize"].manifest()["recipe"]["config"]["tokenization"]
    targets = json.loads((artifacts["evaluate"].path / layout.TARGETS).read_text("utf8"))
    form = Form(artifacts["train"], objective, targets, adapter_only(method), int(section["max_length"]))
    reference_files = reference.write_reference(out, artifacts, objective)
    all_tags = version_tags(artifacts, form, base, config) | {name: str(value) for name, value in tags.items()}
    all_tags |= reference_files.tags
    candidate = Candidate(artifacts, form, base, model_name, alias, config, all_tags)
    (out / layout.REPORT).write_text(report, "utf8")
    client = connect(tracking_uri)
    steps = _report_steps(on_progress)
    with translate_errors(tracking_uri):
        next(steps)
        _ensure_model(client, model_name)
        run = client.get_run(run_id)
        _complete_run(client, run, candidate, out)
        for file, folder in reference_files.files.items():
            client.log_artifact(run_id, str(file), folder or None)
        next(steps)
        version, existing = _get_or_create_version(client, run, candidate, out, steps)
        _describe_version(client, version, candidate, existing, reference_files.tags)
    registration = {
        "model": model_name,
        "version": str(version.version),
        "run_id": run_id,
        "experiment_id": str(run.info.experiment_id),
        "tracking_uri": tracking_uri,
        "model_uri": f"models:/{model_name}/{version.version}",
        "alias": alias,
        "existing": existing,
    }
    (out / "registration.json").write_text(json.dumps(registration, indent=1), "utf8")
    list(steps)
    return Product(artifacts["train"].rows, ("registration.json",), registration)


def adapter_only(method: Method) -> bool:
    """Whether the adapter alone is registered, and not merged into its base."""
    return isinstance(method, AdapterMethod) and not method.merged


def find_version(client: MlflowClient, candidate: Candidate) -> ModelVersion | None:
    """The oldest ready version of the model that gives the same answers, by its tag `hone.register_key`; or None."""
    versions = client.search_model_versions(f"name='{candidate.model_name}' and tags.`{KEY}`='{candidate.form.key}'")
    ready = [version for version in versions if version.status == "READY"]
    return min(ready, key=lambda version: int(version.version), default=None)


def _get_or_create_version(
    client: MlflowClient, run: Run, candidate: Candidate, out: Path, steps: Iterator[None]
) -> tuple[ModelVersion, bool]:
    """The version, created if there is none yet, and whether it existed."""
    version = find_version(client, candidate)
    if version is not None:
        return version, True
    logged = _get_or_create_logged_model(client, run, candidate, out)
    next(steps)
    return _create_version(client, logged, candidate), False


def _report_steps(on_progress: OnProgress) -> Iterator[None]:
    """Each `next` reports the start of the next step."""
    notes = ("metrics and report", "model", "version", "done")
    for done, note in enumerate(notes):
        on_progress(Progress(done, len(notes) - 1, "steps", note))
        yield


def _complete_run(client: MlflowClient, run: Run, candidate: Candidate, out: Path) -> None:
    """Log what the training's run lacks: curves, datasets, test metrics, report, configuration, results."""
    run_id, artifacts = run.info.run_id, candidate.artifacts
    backfill(client, run_id, artifacts["train"].path / layout.HISTORY)
    _log_datasets(client, run, artifacts)
    _log_metrics(client, run, test_metrics(artifacts["evaluate"]))
    (out / "config.yaml").write_text(candidate.config, "utf8")
    for file in (out / layout.REPORT, out / "config.yaml", artifacts["evaluate"].path / layout.METRICS):
        client.log_artifact(run_id, str(file))
    # A promotion reads both: test rows to compare on, training rows to exclude leaked ones.
    for split in (TRAIN, TEST):
        client.log_artifact(run_id, str(artifacts["validate"].path / layout.rows_file(split)), "splits")


def test_metrics(evaluated: Artifact) -> dict[str, float]:
    """MLflow's metrics: `test/accuracy`, `test/accuracy_low` and `_high`; a baseline's as `test_majority/accuracy`."""
    systems = json.loads((evaluated.path / layout.METRICS).read_text("utf8"))["systems"]
    return {
        f"{'test' if system == 'model' else f'test_{system}'}/{metric}{suffix}": float(figure[bound])
        for system, figures in systems.items()
        for metric, figure in figures.items()
        for suffix, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
        if figure is not None
    }


def _log_metrics(client: MlflowClient, run: Run, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    new = [Metric(name, value, now, 0) for name, value in metrics.items() if run.data.metrics.get(name) != value]
    if new:
        client.log_batch(run.info.run_id, metrics=new)


def _log_datasets(client: MlflowClient, run: Run, artifacts: Mapping[str, Artifact]) -> None:
    """Log the splits as the run's inputs; MLflow ignores those it has already."""
    from mlflow.entities import DatasetInput, InputTag

    inputs = [
        DatasetInput(_describe_split(artifacts["validate"], split), [InputTag("mlflow.data.context", context)])
        for split, context in MLFLOW_CONTEXTS.items()
    ]
    client.log_inputs(run.info.run_id, datasets=inputs)


def _describe_split(splits: Artifact, split: str) -> Any:
    """A split as an MLflow dataset; only the file's metadata is read."""
    import pyarrow.parquet as pq
    from mlflow.entities import Dataset

    name = layout.rows_file(split)
    file = pq.ParquetFile(splits.path / name)
    columns = [{"type": "string", "name": column, "required": True} for column in file.schema_arrow.names]
    return Dataset(
        name=f"{splits.manifest()['name'] or splits.stage} {split}",
        digest=splits.manifest()["files"][name]["sha256"][:DATASET_DIGEST],
        source_type="local",
        source=json.dumps({"uri": str(splits.path / name)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": file.metadata.num_rows}),
    )


def _get_or_create_logged_model(client: MlflowClient, run: Run, candidate: Candidate, out: Path) -> LoggedModel:
    """The complete logged model: that of an interrupted call, uploaded again unless it is ready, or a new one."""
    from mlflow.entities import LoggedModelOutput

    filter_string = f"tags.`{KEY}` = '{candidate.form.key}' AND source_run_id = '{run.info.run_id}'"
    existing = client.search_logged_models([run.info.experiment_id], filter_string)
    ready = [logged for logged in existing if logged.status == "READY"]
    if ready:
        return ready[0]
    logged = existing[0] if existing else _create_logged_model(client, run, candidate)
    directory = out / "model"
    try:
        example = _build_example(candidate)
        text = _render_card(candidate, example)
        files_digest = package(directory, candidate.form, candidate.base, card=text, example=example, logged=logged)
        client.log_model_artifacts(logged.model_id, str(directory))
    finally:
        rmtree(directory, ignore_errors=True)
    client.set_logged_model_tags(logged.model_id, {FILES: files_digest})
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _create_logged_model(client: MlflowClient, run: Run, candidate: Candidate) -> LoggedModel:
    return client.create_logged_model(
        run.info.experiment_id,
        name=candidate.model_name,
        source_run_id=run.info.run_id,
        tags=candidate.tags,
        params={
            "max_length": str(candidate.form.max_length),
            "form": "adapter" if candidate.form.adapter else "merged",
        },
        model_type=candidate.form.objective.pipeline,
    )


def _build_example(candidate: Candidate) -> dict[str, str]:
    """The first test row as model inputs, each text in it cut to 200 characters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    objective = candidate.form.objective
    test = pq.ParquetFile(candidate.artifacts["validate"].path / layout.rows_file(TEST))
    first_row = pa.Table.from_batches([next(test.iter_batches(1, columns=list(objective.columns)))])
    [first] = objective.inference_inputs(first_row)

    def cut(name: str, value: str) -> str:
        return objective.replace_texts(name, value, [text[:200] for text in objective.extract_texts(name, value)])

    return {name: cut(name, value) if name in objective.text else value for name, value in first.items()}


def _render_card(candidate: Candidate, example: Mapping[str, str]) -> str:
    return card.render_card(
        candidate.artifacts,
        base=candidate.base,
        objective=candidate.form.objective,
        adapter=candidate.form.adapter,
        model_name=candidate.model_name,
        alias=candidate.alias,
        max_length=candidate.form.max_length,
        example=example,
        config=candidate.config,
        lineage={name.removeprefix("hone."): value for name, value in candidate.tags.items() if value},
    )


def _create_version(client: MlflowClient, logged: LoggedModel, candidate: Candidate) -> ModelVersion:
    with default_tracking_uri(client.tracking_uri):
        version = client.create_model_version(
            candidate.model_name,
            source=f"models:/{logged.model_id}",
            run_id=logged.source_run_id,
            tags=dict(candidate.tags) | {FILES: logged.tags[FILES]},
            model_id=logged.model_id,
        )
    # MLflow's UI links the logged model to its version by this tag, which only a tracking server sets by itself.
    versions = [{"name": candidate.model_name, "version": version.version}]
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": json.dumps(versions)})
    return version


def _ensure_model(client: MlflowClient, name: str) -> None:
    """Create the registered model if it does not exist; raises ConfigError for a name that MLflow does not accept."""
    from mlflow.exceptions import MlflowException

    bad = [character for character in "/:.%\"'" if character in name]
    try:
        if not bad:
            client.create_registered_model(name)
    except MlflowException as fault:
        if fault.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if bad or not name.strip():
        raise ConfigError(
            f"MLflow accepts no model name with {' '.join(bad) or 'nothing in it'}",
            where=f"registration.model {name!r}",
            fix="Use letters, digits, dashes and underscores.",
        )


def _describe_version(
    client: MlflowClient, version: ModelVersion, candidate: Candidate, existing: bool, rows: Mapping[str, str]
) -> None:
    """Tag the version with its test metrics and rows; point the alias to it, for an existing version only if free."""
    metrics = {name: value for name, value in test_metrics(candidate.artifacts["evaluate"]).items() if "test/" in name}
    metric_tags = {f"hone.{name.replace('/', '.')}": f"{value:.6g}" for name, value in metrics.items()}
    for tag, text in {**metric_tags, **rows}.items():
        if version.tags.get(tag) != text:
            client.set_model_version_tag(candidate.model_name, version.version, tag, text)
    aliases = client.get_registered_model(candidate.model_name).aliases
    if not existing or candidate.alias not in aliases:
        client.set_registered_model_alias(candidate.model_name, candidate.alias, version.version)
