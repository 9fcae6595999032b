"""The versions and runs in MLflow that nothing needs any more, and their removal with MLflow's client.

A version stays if Hone did not register it, if it has an alias or a person's tag or notes, if the journal's last move
or another version that stays refers to it, if it is among the newest of its model, or if it is recent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import StoreError
from hone.promotion.journal import Journal
from hone.registry import integrity, page
from hone.store.retention import Garbage
from hone.tracking.client import connect, list_all, translate_errors
from hone.tracking.files import delete_files
from hone.tracking.reader import SCHEME, find_local_path
from hone.tracking.run_log import TRAIN_KEY
from hone.tracking.version_tags import unfold_digests

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

OWN_TAGS = ("hone.", "mlflow.")
FROM_SCRATCH = " from scratch"  # the end of the tag hone.base_model of a version without a base of its own
# The digests of store artifacts that a version is tagged with: of its training, and of its rows.
ARTIFACTS = ("hone.model_digest", "hone.data_digest")


@dataclass(frozen=True)
class Registry:
    """All versions in MLflow's registry, and their aliases by `models:/NAME/NUMBER`."""

    client: MlflowClient
    versions: tuple[ModelVersion, ...]
    aliased: frozenset[str]

    @cached_property
    def digests(self) -> set[str]:
        """The digests of the artifacts that the versions of Hone are tagged with."""
        tags = [unfold_digests(version.tags) for version in self.versions]
        return {values[name] for values in tags for name in ARTIFACTS if name in values}

    def has_registration(self, facts: Mapping[str, Any]) -> bool:
        """Whether these facts of a `register` artifact are of a version in this registry, under whatever address."""
        version, run_id = (facts.get("model"), str(facts.get("version"))), facts.get("run_id")
        return any((other.name, str(other.version)) == version and other.run_id == run_id for other in self.versions)

    def has_base_from_scratch(self) -> bool:
        """Whether a version was tuned from a base model that Hone made: an adapter finds it in the store only."""
        return any(version.tags.get("hone.base_model", "").endswith(FROM_SCRATCH) for version in self.versions)

    def refers_to(self, run: Run, models: list[LoggedModel]) -> bool:
        """Whether a version, of Hone or not, is of this run, or has one of its logged models or its files."""
        run_id = str(run.info.run_id)
        names = [run_id, *(logged.model_id for logged in models)]
        return any(version.run_id == run_id for version in self.versions) or any(map(self.has_source, names))

    def has_source(self, part: str) -> bool:
        """Whether the source of a version contains the id of a run or a logged model."""
        return any(part in str(version.source) for version in self.versions)

    def without(self, removed: list[ModelVersion]) -> Registry:
        """The registry as it is once these versions are removed."""
        uris = set(map(_uri, removed))
        remaining = tuple(version for version in self.versions if _uri(version) not in uris)
        return Registry(self.client, remaining, self.aliased)


def read_registry(tracking_uri: str) -> Registry:
    """The registry at `tracking_uri`. Raises ServiceError."""
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        models = list_all(client.search_registered_models)
        aliased = {f"{SCHEME}{model.name}/{number}" for model in models for number in model.aliases.values()}
        return Registry(client, tuple(list_all(client.search_model_versions)), frozenset(aliased))


def list_unneeded(registry: Registry, keep: int, before: float) -> list[ModelVersion]:
    """The versions that nothing needs: older than the time `before`, and not among the newest `keep` of their model."""
    newest = _list_newest(registry, keep)
    journalled = _list_journalled(registry)
    needed = {
        _uri(version)
        for version in registry.versions
        if _uri(version) in registry.aliased | newest | journalled
        or version.creation_timestamp / 1000 >= before
        or not _is_only_hones(version)
    }
    bases = {_uri(version): version.tags.get("hone.base_model", "") for version in registry.versions}
    pending = list(needed)
    while pending:
        base = bases.get(pending.pop(), "")
        if base in bases and base not in needed:
            needed.add(base)
            pending.append(base)
    return [version for version in registry.versions if _uri(version) not in needed]


def list_garbage(
    registry: Registry, keep: int, before: float, is_training_used: Callable[[str], bool]
) -> tuple[list[Garbage], Registry]:
    """The versions that nothing needs and the training runs without a version that ended before the time `before`.

    Runs whose training the store used since (`is_training_used` of a train key) stay, and so do their versions. Also
    returns the registry without the versions.
    """
    client = registry.client
    with translate_errors(client.tracking_uri):
        runs = {str(run.info.run_id): run for run in _list_training_runs(client)}
        used = {run_id for run_id, run in runs.items() if is_training_used(run.data.tags[TRAIN_KEY])}
        unneeded = [version for version in list_unneeded(registry, keep, before) if version.run_id not in used]
        remaining = registry.without(unneeded)
        reason = f"not among the newest {keep}, and without an alias"
        garbage = [_describe_version(version, runs.get(version.run_id), remaining, reason) for version in unneeded]
        for run_id, run in runs.items():
            if run_id not in used and _has_ended(run, before):
                models = _list_logged_models(client, run)
                if not registry.refers_to(run, models):
                    garbage.append(_describe_run(client, run, models))
    return garbage, remaining


def _describe_version(version: ModelVersion, run: Run | None, remaining: Registry, reason: str) -> Garbage:
    """The version with its run and logged models, or without what the remaining versions need of them."""
    client = remaining.client
    models = _list_logged_models(client, run) if run else []
    if run and remaining.refers_to(run, models):
        run, models = None, [model for model in models if _is_own(model, version, remaining)]
    remove = partial(remove_version, client, version, run, models)
    name = f"{version.name} version {version.version}"
    return Garbage("model versions", name, reason, _list_paths(run, models), remove)


def _describe_run(client: MlflowClient, run: Run, models: list[LoggedModel]) -> Garbage:
    remove = partial(remove_run, client, run, models)
    name = f"{run.info.run_name} {run.info.run_id}"
    return Garbage("runs without a version", name, "no version is of this run", _list_paths(run, models), remove)


def remove_version(client: MlflowClient, version: ModelVersion, run: Run | None, models: list[LoggedModel]) -> bool:
    """Delete a version, its logged models, and its run if there is one to delete; False if it has an alias now.

    A kill leaves a run without a version, which the next call removes.
    """
    from mlflow.exceptions import MlflowException

    try:
        if client.get_model_version(version.name, version.version).aliases:
            return False
        client.delete_model_version(version.name, version.version)
    except MlflowException as fault:
        if fault.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    if run is None:
        _remove_models(client, models)
        return True
    return remove_run(client, run, models)


def remove_run(client: MlflowClient, run: Run, models: list[LoggedModel]) -> bool:
    """Delete the files of a run and of its logged models, then both in MLflow, where `mlflow gc` deletes their rows."""
    _remove_models(client, models)
    delete_files(run.info.artifact_uri, client.tracking_uri)
    client.delete_run(run.info.run_id)
    return True


def _remove_models(client: MlflowClient, models: list[LoggedModel]) -> None:
    for logged in models:
        # A model that is not ready is uploaded again by a registration; one without its files would be used.
        client.finalize_logged_model(logged.model_id, "FAILED")
        delete_files(logged.artifact_location, client.tracking_uri)
        client.delete_logged_model(logged.model_id)


def _uri(version: ModelVersion) -> str:
    return f"{SCHEME}{version.name}/{version.version}"


def _is_only_hones(version: ModelVersion) -> bool:
    """Whether Hone registered the version, and nobody added a stage, a tag or notes."""
    is_staged = (version.current_stage or "None") != "None"
    tagged = any(not name.startswith(OWN_TAGS) for name in version.tags)
    notes = page.parse_page(version.description or "").notes
    return integrity.TAG in version.tags and version.status == "READY" and not (is_staged or tagged or notes)


def _list_newest(registry: Registry, keep: int) -> set[str]:
    """The newest `keep` versions of each model."""
    numbers: dict[str, list[int]] = {}
    for version in registry.versions:
        numbers.setdefault(version.name, []).append(int(version.version))
    return {f"{SCHEME}{name}/{number}" for name, all_ in numbers.items() for number in sorted(all_)[-keep:]}


def _list_journalled(registry: Registry) -> set[str]:
    """The versions that the last move of each model's journal names: one without an alias may be on its way to one.

    All versions of a model whose journal cannot be read.
    """
    named = set()
    for name in {version.name for version in registry.versions}:
        try:
            moves = [record.entry for record in Journal(registry.client, name).records() if record.entry.moves]
        except StoreError:  # it may name any
            named |= {_uri(version) for version in registry.versions if version.name == name}
            continue
        for entry in moves[-1:]:
            named |= {f"{SCHEME}{name}/{number}" for number in (entry.from_version, entry.to_version, entry.previous)}
    return named


def _list_training_runs(client: MlflowClient) -> list[Run]:
    """The training runs of Hone in all experiments."""
    experiments = [experiment.experiment_id for experiment in list_all(client.search_experiments)]
    search = partial(client.search_runs, experiments, f"tags.`{TRAIN_KEY}` LIKE '%'", max_results=1000)
    return list_all(search)


def _list_logged_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The logged models of a run."""
    filter_string = f"source_run_id = '{run.info.run_id}'"
    return list_all(partial(client.search_logged_models, [run.info.experiment_id], filter_string))


def _is_own(logged: LoggedModel, version: ModelVersion, remaining: Registry) -> bool:
    """Whether this is the version's logged model, and no version that stays has it too."""
    return logged.model_id in str(version.source) and not remaining.has_source(logged.model_id)


def _has_ended(run: Run, before: float) -> bool:
    """Whether the run ended before the time `before`; one that MLflow reports as running may run on another machine."""
    return bool(run.info.status != "RUNNING" and run.info.end_time and run.info.end_time / 1000 < before)


def _list_paths(run: Run | None, models: list[LoggedModel]) -> tuple[Path, ...]:
    """The folders on this machine with the files of the run and its models."""
    locations = [*([run.info.artifact_uri] if run else []), *(model.artifact_location for model in models)]
    return tuple(path for location in locations if (path := find_local_path(location)) and path.is_dir())
