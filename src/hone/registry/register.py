"""The last stage: one MLflow model version, with all that is needed to trust it, or the one that exists.

Every step may have been done by an earlier, interrupted call, and is then not done again: curves, datasets and
metrics are compared with what the run has, and model and version are found by `hone.register_key`.
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
MLFLOW_CONTEXTS = {TRAIN: "train", VALID: "validation", TEST: "test"}  # the names that MLflow uses
DATASET_DIGEST = 36  # characters, the most that MLflow takes
SOURCES = 1000  # characters of the sources' names


@dataclass(frozen=True)
class Candidate:
    """What is registered: artifacts by stage, the form they are served in, and where they come from."""

    artifacts: Mapping[str, Artifact]
    form: Form
    base: BaseModel
    model_name: str
    alias: str
    config: str
    tags: Mapping[str, str]


def version_tags(artifacts: Mapping[str, Artifact], form: Form, base: BaseModel, config: str) -> dict[str, str]:
    """What a version is tagged with: digests of data, config, code, model and targets, and the base model."""
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
    """Register the trained model as a version of `model_name`, `alias` pointing to it; one that exists is used.

    `artifacts` are those of the stages ingest to evaluate, `report` is HTML, `config` the resolved YAML, `run_id` the
    training's run; `tags` go on the version (`hone.git_commit`, `hone.flow_run_id`). Writes registration.json and
    report.html. Raises ServiceError where MLflow does not answer, ConfigError for a name it does not take,
    ModelError where a file could run code when loaded.
    """
    section = artifacts["tokenize"].manifest()["recipe"]["config"]["tokenization"]
    targets = json.loads((artifacts["evaluate"].path / layout.TARGETS).read_text("utf8"))
    form = Form(artifacts["train"], objective, targets, adapter_only(method), int(section["max_length"]))
    memory = reference.write_reference(out, artifacts, objective)
    known = version_tags(artifacts, form, base, config) | {name: str(value) for name, value in tags.items()}
    known |= memory.tags
    wanted = Candidate(artifacts, form, base, model_name, alias, config, known)
    (out / layout.REPORT).write_text(report, "utf8")
    client = connect(tracking_uri)
    steps = _counted(on_progress)
    with translate_errors(tracking_uri):
        next(steps)
        _ensure_model(client, model_name)
        run = client.get_run(run_id)
        _complete_run(client, run, wanted, out)
        for file, folder in memory.files.items():
            client.log_artifact(run_id, str(file), folder or None)
        next(steps)
        version = find_version(client, wanted)
        existing = version is not None
        if version is None:
            logged = _logged_model(client, run, wanted, out)
            next(steps)
            version = _new_version(client, logged, wanted)
        _describe_version(client, version, wanted, existing, memory.tags)
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


def find_version(client: MlflowClient, wanted: Candidate) -> ModelVersion | None:
    """The oldest version of the model's name that answers as this one would and is ready."""
    found = client.search_model_versions(f"name='{wanted.model_name}' and tags.`{KEY}`='{wanted.form.key}'")
    ready = [version for version in found if version.status == "READY"]
    return min(ready, key=lambda version: int(version.version), default=None)


def _counted(on_progress: OnProgress) -> Iterator[None]:
    """Each `next` reports the step that begins now."""
    notes = ("metrics and report", "model", "version", "done")
    for done, note in enumerate(notes):
        on_progress(Progress(done, len(notes) - 1, "steps", note))
        yield


def _complete_run(client: MlflowClient, run: Run, wanted: Candidate, out: Path) -> None:
    """Bring the training's run up to date: curves, datasets, test metrics, report, configuration, results."""
    run_id, artifacts = run.info.run_id, wanted.artifacts
    backfill(client, run_id, artifacts["train"].path / layout.HISTORY)
    _log_datasets(client, run, artifacts)
    _log_metrics(client, run, test_metrics(artifacts["evaluate"]))
    (out / "config.yaml").write_text(wanted.config, "utf8")
    for file in (out / layout.REPORT, out / "config.yaml", artifacts["evaluate"].path / layout.METRICS):
        client.log_artifact(run_id, str(file))
    # What a promotion judges by: the rows that were trained on, and those that were not.
    for split in (TRAIN, TEST):
        client.log_artifact(run_id, str(artifacts["validate"].path / layout.rows_file(split)), "splits")


def test_metrics(evaluated: Artifact) -> dict[str, float]:
    """`test/accuracy`, `test/accuracy_low` and `_high`, and each baseline's as `test_majority/accuracy`."""
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
    """Name the splits as the run's inputs; MLflow leaves out those it has."""
    from mlflow.entities import DatasetInput, InputTag

    inputs = [
        DatasetInput(_dataset(artifacts["validate"], split), [InputTag("mlflow.data.context", context)])
        for split, context in MLFLOW_CONTEXTS.items()
    ]
    client.log_inputs(run.info.run_id, datasets=inputs)


def _dataset(splits: Artifact, split: str) -> Any:
    """A split as MLflow describes data; nothing of it is read but the file's schema."""
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


def _logged_model(client: MlflowClient, run: Run, wanted: Candidate, out: Path) -> LoggedModel:
    """The logged model, whole: the one an interrupted call left, filled again unless it was finished, or a new one."""
    from mlflow.entities import LoggedModelOutput

    filter_string = f"tags.`{KEY}` = '{wanted.form.key}' AND source_run_id = '{run.info.run_id}'"
    found = client.search_logged_models([run.info.experiment_id], filter_string)
    ready = [logged for logged in found if logged.status == "READY"]
    if ready:
        return ready[0]
    logged = found[0] if found else _new_logged_model(client, run, wanted)
    place = out / "model"
    try:
        example = _example(wanted)
        text = _card(wanted, example)
        proof = package(place, wanted.form, wanted.base, card=text, example=example, logged=logged)
        client.log_model_artifacts(logged.model_id, str(place))
    finally:
        rmtree(place, ignore_errors=True)
    client.set_logged_model_tags(logged.model_id, {FILES: proof})
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _new_logged_model(client: MlflowClient, run: Run, wanted: Candidate) -> LoggedModel:
    return client.create_logged_model(
        run.info.experiment_id,
        name=wanted.model_name,
        source_run_id=run.info.run_id,
        tags=wanted.tags,
        params={"max_length": str(wanted.form.max_length), "form": "adapter" if wanted.form.adapter else "merged"},
        model_type=wanted.form.objective.pipeline,
    )


def _example(wanted: Candidate) -> dict[str, str]:
    """What the first test row would be asked as, each text in it cut to 200 characters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    objective = wanted.form.objective
    test = pq.ParquetFile(wanted.artifacts["validate"].path / layout.rows_file(TEST))
    first_row = pa.Table.from_batches([next(test.iter_batches(1, columns=list(objective.columns)))])
    [first] = objective.inference_inputs(first_row)

    def cut(name: str, value: str) -> str:
        return objective.replace_texts(name, value, [text[:200] for text in objective.extract_texts(name, value)])

    return {name: cut(name, value) if name in objective.text else value for name, value in first.items()}


def _card(wanted: Candidate, example: Mapping[str, str]) -> str:
    return card.write(
        wanted.artifacts,
        base=wanted.base,
        objective=wanted.form.objective,
        adapter=wanted.form.adapter,
        model_name=wanted.model_name,
        alias=wanted.alias,
        max_length=wanted.form.max_length,
        example=example,
        config=wanted.config,
        lineage={name.removeprefix("hone."): value for name, value in wanted.tags.items() if value},
    )


def _new_version(client: MlflowClient, logged: LoggedModel, wanted: Candidate) -> ModelVersion:
    with default_tracking_uri(client.tracking_uri):
        version = client.create_model_version(
            wanted.model_name,
            source=f"models:/{logged.model_id}",
            run_id=logged.source_run_id,
            tags=dict(wanted.tags) | {FILES: logged.tags[FILES]},
            model_id=logged.model_id,
        )
    # By this tag MLflow's pages lead from the model to its version; a server sets it, a database does not.
    made = [{"name": wanted.model_name, "version": version.version}]
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": json.dumps(made)})
    return version


def _ensure_model(client: MlflowClient, name: str) -> None:
    """Make the registered model; raises ConfigError for a name that MLflow takes for no model."""
    from mlflow.exceptions import MlflowException

    bad = [sign for sign in "/:.%\"'" if sign in name]
    try:
        if not bad:
            client.create_registered_model(name)
    except MlflowException as fault:
        if fault.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if bad or not name.strip():
        raise ConfigError(
            f"MLflow takes no model name with {' '.join(bad) or 'nothing in it'}",
            where=f"registration.model {name!r}",
            fix="Use letters, digits, dashes and underscores.",
        )


def _describe_version(
    client: MlflowClient, version: ModelVersion, wanted: Candidate, existing: bool, rows: Mapping[str, str]
) -> None:
    """Tag the version with its test results and its rows, and point the alias to it: to an old one if it is free."""
    metrics = {name: value for name, value in test_metrics(wanted.artifacts["evaluate"]).items() if "test/" in name}
    told = {f"hone.{name.replace('/', '.')}": f"{value:.6g}" for name, value in metrics.items()}
    for tag, text in {**told, **rows}.items():
        if version.tags.get(tag) != text:
            client.set_model_version_tag(wanted.model_name, version.version, tag, text)
    aliases = client.get_registered_model(wanted.model_name).aliases
    if not existing or wanted.alias not in aliases:
        client.set_registered_model_alias(wanted.model_name, wanted.alias, version.version)
