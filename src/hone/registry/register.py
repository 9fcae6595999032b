"""The last stage: registers one MLflow model version with everything needed to trust it, or reuses an existing one.

A step that an earlier, interrupted call completed is not repeated: curves, datasets and metrics are compared with those
of the run, and the logged model and the version are found by their tag `hone.register_key`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hone.display import mask_secrets
from hone.errors import ConfigError
from hone.evaluation.report.population import describe_population
from hone.evaluation.report.report_champion import Champion, Registered
from hone.evaluation.report.report_judge import describe_judge
from hone.methods.method import AdapterMethod, Method
from hone.models.locate import BaseModel
from hone.objectives.base import Objective
from hone.progress import OnProgress, Progress, ignore
from hone.registry import card, page, reference, run_record, version_page
from hone.registry.champion_results import load_champion
from hone.registry.integrity import TAG as FILES
from hone.registry.integrity import is_intact
from hone.registry.package import Form, package
from hone.rewriting import Rewriter
from hone.splits import SPLITS, TEST
from hone.store import layout
from hone.store.artifact import Artifact, Product
from hone.store.digests import digest_of, file_digest
from hone.tracking.aliases import CHAMPION, list_aliases
from hone.tracking.client import connect, default_tracking_uri, translate_errors
from hone.tracking.files import log_model_directory
from hone.tracking.links import CONFIG, build_url, version_route
from hone.tracking.names import find_model_fault
from hone.tracking.reader import DAMAGED_RUN, SCHEME, Version, get_version, has_run
from hone.tracking.run_files import log_run_files
from hone.tracking.run_log import backfill
from hone.tracking.version_tags import fold_digests, unfold_digests

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

KEY = "hone.register_key"
UNFINISHED = "hone.unfinished"  # a tag of a version from its creation until everything else of it is done
URL = "hone.flow_run_url"  # the page of the Prefect run: a tag of the MLflow run, a link on the page of the version
EXAMPLE = "text"
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
    result_tags: Mapping[str, str]
    metrics: Mapping[str, Any]
    flow_run_url: str
    example_row: bool = False

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """The splits as MLflow datasets, by name."""
        return {split: run_record.describe_split(self.artifacts["validate"], split) for split in SPLITS}

    @cached_property
    def population(self) -> list[str]:
        """Sentences on the rows that were measured."""
        facts = {stage: self.artifacts[stage].facts() for stage in ("ingest", "curate", "tokenize", "train")}
        return [*describe_population(facts, self.metrics), *describe_judge(self.metrics.get("judge"))]

    @cached_property
    def example(self) -> dict[str, str]:
        """The first test row as model inputs. Each text is EXAMPLE, or with `example_row` its first 200 characters."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        objective = self.form.objective
        test = pq.ParquetFile(self.artifacts["validate"].path / layout.rows_file(TEST))
        first_row = pa.Table.from_batches([next(test.iter_batches(1, columns=list(objective.columns)))])
        [inputs] = objective.inference_inputs(first_row)
        return {name: self._show_input(name, value) for name, value in inputs.items()}

    def _show_input(self, name: str, value: str) -> str:
        objective = self.form.objective
        if name in objective.text:
            return objective.replace_texts(name, value, list(map(self._show, objective.extract_texts(name, value))))
        return value if name in objective.columns else self._show(value)  # an input that is no column is a text

    def _show(self, text: str) -> str:
        return text[:200] if self.example_row else EXAMPLE

    @cached_property
    def card(self) -> str:
        """The model card."""
        lineage = {name.removeprefix("hone."): value for name, value in unfold_digests(self.tags).items() if value}
        return card.render_card(
            self.artifacts,
            base=self.base,
            objective=self.form.objective,
            adapter=self.form.adapter,
            model_name=self.model_name,
            alias=self.alias,
            max_length=self.form.max_length,
            example=self.example,
            config=self.config,
            lineage=lineage,
            metrics=self.metrics,
            population=self.population,
        )


def build_tags(artifacts: Mapping[str, Artifact], form: Form, base: BaseModel, config: str) -> dict[str, str]:
    """The tags of lineage: the base model, and digests of data, config, code, model and targets."""
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
    render_report: Callable[[Registered], str],
    base: BaseModel,
    objective: Objective,
    method: Method,
    tracking_uri: str,
    run_id: str,
    model_name: str,
    alias: str,
    config: str,
    tags: Mapping[str, str],
    rewriters: Sequence[Rewriter] = (),
    example_row: bool = False,
    on_progress: OnProgress = ignore,
) -> Product:
    """Register the trained model as a version of `model_name` and point `alias` to it; an existing version is reused.

    `artifacts` are those of the stages ingest to evaluate, `render_report` makes the HTML once the version's number is
    known, `rewriters` are the curation steps that the served model applies too, `config` is the resolved YAML, `run_id`
    the training's MLflow run, `tags` are further tags of the version (`hone.git_commit`, `hone.flow_run_id`); with
    `example_row` a new version shows a test row. Writes registration.json and report.html. Raises ServiceError if
    MLflow does not answer, ConfigError for a model name that MLflow does not accept, ModelError if a file could run
    code when it is loaded.
    """
    reference_files = reference.write_reference(out, artifacts, objective, rewriters)
    candidate = _build_candidate(
        artifacts,
        base,
        objective,
        method,
        rewriters,
        model_name,
        alias,
        config,
        tags,
        reference_files.tags,
        example_row,
    )
    client = connect(tracking_uri)
    steps = _report_steps(on_progress)
    with translate_errors(tracking_uri):
        next(steps)
        _ensure_model(client, model_name)
        run = client.get_run(run_id)
        _complete_run(client, run, candidate, out, reference_files.files)
        next(steps)
        version, existing = _get_or_create_version(client, run, candidate, out, steps)
        logged = _find_logged_model(client, version)
        _link_version(client, logged, version)
        run_record.log_test_metrics(client, run, candidate.metrics, candidate.datasets[TEST], logged)
        registered = _write_report(client, candidate, str(version.version), existing, render_report, out)
        client.log_artifact(run_id, str(out / layout.REPORT))
        results = _describe(client, run, version, candidate, registered.champion)
        if registered.alias and list_aliases(client, model_name).get(alias) != registered.version:
            client.set_registered_model_alias(model_name, alias, version.version)
        for tag in (DAMAGED_RUN, UNFINISHED):
            if tag in version.tags:
                client.delete_model_version_tag(model_name, version.version, tag)
    list(steps)
    about: dict[str, Any] = {"existing": existing, "results": results, "population": candidate.population}
    if registered.champion and registered.champion.damage:
        about["warnings"] = [f"not compared with the champion: {registered.champion.damage}"]
        log.warning(about["warnings"][0])
    facts = _list_facts(tracking_uri, run, version, alias) | about
    (out / "registration.json").write_text(json.dumps(facts, indent=1), "utf8")
    return Product(artifacts["train"].rows, ("registration.json",), facts)


def _list_facts(tracking_uri: str, run: Run, version: ModelVersion, alias: str) -> dict[str, Any]:
    """Where the version is."""
    return {
        "model": version.name,
        "version": str(version.version),
        "run_id": run.info.run_id,
        "experiment_id": str(run.info.experiment_id),
        "tracking_uri": mask_secrets(tracking_uri),
        "model_uri": f"{SCHEME}{version.name}/{version.version}",
        "alias": alias,
    }


def _build_candidate(
    artifacts: Mapping[str, Artifact],
    base: BaseModel,
    objective: Objective,
    method: Method,
    rewriters: Sequence[Rewriter],
    model_name: str,
    alias: str,
    config: str,
    tags: Mapping[str, str],
    reference_tags: Mapping[str, str],
    example_row: bool,
) -> Candidate:
    """What is to be registered, from the artifacts of the stages; `reference_tags` are of the drift reference."""
    section = artifacts["tokenize"].manifest()["recipe"]["config"]["tokenization"]
    targets = artifacts["evaluate"].read_json(layout.TARGETS)
    form = Form(artifacts["train"], objective, targets, adapter_only(method), int(section["max_length"]), rewriters)
    metrics = artifacts["evaluate"].read_json(layout.METRICS)
    if "judge" in artifacts:
        metrics["judge"] = artifacts["judge"].read_json(layout.JUDGE)
    results = version_page.build_result_tags(metrics) | dict(reference_tags)
    lineage = build_tags(artifacts, form, base, config)
    lineage |= {name: str(value) for name, value in tags.items() if name != URL}
    lineage = {name: value for name, value in lineage.items() if value}
    return Candidate(
        artifacts,
        form,
        base,
        model_name,
        alias,
        config,
        fold_digests(results | lineage),
        results,
        metrics,
        str(tags.get(URL, "")),
        example_row,
    )


def adapter_only(method: Method) -> bool:
    """Whether the adapter alone is registered, and not merged into its base."""
    return isinstance(method, AdapterMethod) and not method.merged


def find_version(client: MlflowClient, candidate: Candidate) -> ModelVersion | None:
    """The oldest ready and intact version of the model that gives the same answers, by its tag `hone.register_key`.

    A version whose run was deleted does not count: its rows and figures are gone, and cannot be logged in another run.
    """
    versions = client.search_model_versions(f"name='{candidate.model_name}' and tags.`{KEY}`='{candidate.form.key}'")
    uri = client.tracking_uri
    ready = (version for version in versions if version.status == "READY" and version.run_id)
    usable = (version for version in ready if has_run(uri, version.run_id))
    oldest_first = sorted(usable, key=lambda version: int(version.version))
    sources = ((version, get_version(uri, f"{SCHEME}{version.name}/{version.version}")) for version in oldest_first)
    return next((version for version, files in sources if is_intact(uri, files)), None)


def _get_or_create_version(
    client: MlflowClient, run: Run, candidate: Candidate, out: Path, steps: Iterator[None]
) -> tuple[ModelVersion, bool]:
    """The version, created if there is none yet, and whether it existed: not if its registration was interrupted."""
    version = find_version(client, candidate)
    if version is not None:
        return version, UNFINISHED not in version.tags
    logged = _get_or_create_logged_model(client, run, candidate, out)
    next(steps)
    return _create_version(client, logged, candidate), False


def _report_steps(on_progress: OnProgress) -> Iterator[None]:
    """Each `next` reports the start of the next step."""
    notes = ("metrics and files", "model", "version and report", "done")
    for done, note in enumerate(notes):
        on_progress(Progress(done, len(notes) - 1, "steps", note))
        yield


def _complete_run(
    client: MlflowClient, run: Run, candidate: Candidate, out: Path, reference_files: Mapping[Path, str]
) -> None:
    """Log what the training's run lacks: curves, datasets, configuration, results, answers, rows."""
    run_id, artifacts = run.info.run_id, candidate.artifacts
    backfill(client, run_id, artifacts["train"].path / layout.HISTORY)
    run_record.log_datasets(client, run, candidate.datasets)
    run_record.log_intervals(client, run_id, candidate.metrics)
    (out / CONFIG).write_text(candidate.config, "utf8")
    evaluated, validated = artifacts["evaluate"].path, artifacts["validate"].path
    # The report of a later version compares its answers with the predictions.
    copies = [(out / CONFIG, ""), (evaluated / layout.METRICS, ""), (evaluated / layout.PREDICTIONS, "")]
    copies += reference_files.items()
    # A promotion reads all: test rows to compare on, and the others to exclude what the champion saw in its training.
    splits = [(validated / layout.rows_file(split), layout.SPLITS) for split in SPLITS]
    log_run_files(client, run, _name_files(copies), _name_files(splits))
    client.log_artifact(run_id, str(validated / layout.DATA_DOCS))


def _name_files(files: Iterable[tuple[Path, str]]) -> dict[str, Path]:
    """Files with the folders that they are logged in, by their paths among the run's files."""
    return {f"{folder}/{file.name}" if folder else file.name: file for file, folder in files}


def _get_or_create_logged_model(client: MlflowClient, run: Run, candidate: Candidate, out: Path) -> LoggedModel:
    """A complete, intact logged model: that of an interrupted call, uploaded again unless it is ready, or a new one."""
    from mlflow.entities import LoggedModelOutput

    filter_string = f"tags.`{KEY}` = '{candidate.form.key}' AND source_run_id = '{run.info.run_id}'"
    existing = client.search_logged_models([run.info.experiment_id], filter_string)
    unfinished = [logged for logged in existing if logged.status != "READY"]
    for logged in existing:
        if _is_reusable(client, logged):
            return logged
    logged = unfinished[0] if unfinished else _create_logged_model(client, run, candidate)
    directory = out / "model"
    try:
        files_digest = package(
            directory, candidate.form, candidate.base, card=candidate.card, example=candidate.example, logged=logged
        )
        log_model_directory(client, logged, directory)
    finally:
        rmtree(directory, ignore_errors=True)
    client.set_logged_model_tags(logged.model_id, {FILES: files_digest})
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _is_reusable(client: MlflowClient, logged: LoggedModel) -> bool:
    """Whether the logged model is ready and its files are those that were packaged."""
    files = Version(logged.name, logged.model_id, logged.source_run_id or "", logged.artifact_location, logged.tags)
    return logged.status == "READY" and is_intact(client.tracking_uri, files)


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


def _create_version(client: MlflowClient, logged: LoggedModel, candidate: Candidate) -> ModelVersion:
    with default_tracking_uri(client.tracking_uri):
        return client.create_model_version(
            candidate.model_name,
            source=f"models:/{logged.model_id}",
            run_id=logged.source_run_id,
            tags=dict(candidate.tags) | {FILES: logged.tags[FILES], UNFINISHED: "true"},
            model_id=logged.model_id,
        )


def _link_version(client: MlflowClient, logged: LoggedModel | None, version: ModelVersion) -> None:
    """Set the tag by which MLflow's UI links the logged model to its versions: only a tracking server does so itself.

    Those of other registered models stay.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    if logged is None:
        return
    link = {"name": version.name, "version": int(version.version)}
    links = json.loads(logged.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    others = [other for other in links if other["name"] != version.name]
    if link not in links:
        client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*others, link])})


def _ensure_model(client: MlflowClient, name: str) -> None:
    """Create the registered model if it does not exist; raises ConfigError for a name that MLflow does not accept."""
    from mlflow.exceptions import MlflowException

    if reason := find_model_fault(name):
        fix = "Use letters, digits, dashes and underscores."
        raise ConfigError(reason, where=f"registration.model {name!r}", fix=fix)
    try:
        client.create_registered_model(name)
    except MlflowException as fault:
        if fault.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_logged_model(client: MlflowClient, version: ModelVersion) -> LoggedModel | None:
    """The logged model of the version; None if it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_logged_model(str(version.source).removeprefix(SCHEME))
    except MlflowException as fault:
        if fault.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _write_report(
    client: MlflowClient,
    candidate: Candidate,
    number: str,
    existing: bool,
    render_report: Callable[[Registered], str],
    out: Path,
) -> Registered:
    """Write report.html, and return what it shows of the version. The champion's answers are kept only as long."""
    with TemporaryDirectory() as downloads:
        registered = _collect_registered(client, candidate, number, existing, Path(downloads))
        (out / layout.REPORT).write_text(render_report(registered), "utf8")
    return registered


def _collect_registered(
    client: MlflowClient, candidate: Candidate, number: str, existing: bool, downloads: Path
) -> Registered:
    """What the report shows of the version; its alias is that of the candidate unless another version has it.

    A version that did not exist takes the alias from the one that has it. The champion's answers are downloaded into
    `downloads`.
    """
    name, aliases = candidate.model_name, list_aliases(client, candidate.model_name)
    owner = aliases.get(candidate.alias, number) if existing else number
    champion = (
        load_champion(client, name, aliases[CHAMPION], candidate.datasets[TEST], downloads)
        if CHAMPION in aliases
        else None
    )
    return Registered(
        name,
        number,
        candidate.alias if owner == number else "",
        build_url(client.tracking_uri, version_route(name, number)),
        champion,
    )


def _describe(
    client: MlflowClient, run: Run, version: ModelVersion, candidate: Candidate, champion: Champion | None
) -> list[str]:
    """Bring tags and descriptions of version, model and run to what they should be, the version's description last.

    Returns the results in Markdown: the verdict, the figures, and on what rows the champion's were measured.
    """
    number = str(version.version)
    current = client.get_model_version(candidate.model_name, number)
    version_page.set_tags(client, current, candidate.tags, candidate.result_tags)
    results = version_page.describe_results(current, candidate.metrics, champion)
    links = version_page.list_links(run, current, candidate.flow_run_url or run.data.tags.get(URL, ""))
    head = "\n\n".join([*results, page.render_links(links), *candidate.population])
    version_page.describe_run(client, run, current, results[:2], candidate.tags.get("hone.git_commit", ""))
    objective = candidate.form.objective.pipeline
    version_page.describe_model(client, current, results[0], f"{objective} by {candidate.base.base}")
    version_page.set_description(client, current, head, page.select_card_sections(candidate.card))
    return results
