"""Verification of what a configuration's runs have left: every byte in the store, and of the registered version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import ModelError, StoreError
from hone.pipeline.run import build_recipe
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_inputs, list_stages
from hone.registry.integrity import check_files
from hone.store.artifact import Artifact
from hone.tracking.links import check_run_files
from hone.tracking.reader import Version, get_version, has_run


@dataclass(frozen=True)
class Verification:
    """The artifacts that are as they were written, what is wrong with the others, and why stages were not verified.

    `version_fault` is what is wrong with the registered version's files, None if nothing is or there is none.
    """

    intact: Sequence[str] = ()
    faults: Sequence[str] = ()
    version_fault: ModelError | None = None
    unverified: Mapping[str, str] = field(default_factory=dict)


def verify_run(config: RunConfig, home: Home) -> Verification:
    """Read the artifacts that exist for the configuration, damaged ones too, and the files of its version.

    What a stage has not made yet is no damage. The stages after an artifact without a readable manifest, which says
    what they were made of, cannot be looked up.
    """
    artifacts: dict[str, Artifact] = {}
    faults: dict[str, list[str]] = {}
    unverified: dict[str, str] = {}
    for name in list_stages(config):
        missing = [upstream for upstream in list_inputs(name, config) if upstream not in artifacts]
        if missing:
            unverified[name] = f"it is made of {' and '.join(missing)}"
            continue
        key = build_recipe(name, Job(config, artifacts, home)).key
        if not home.store.directory(name, key).exists():
            unverified[name] = "it does not exist"
            continue
        try:
            artifacts[name] = home.store.read(name, key)
            faults[name] = home.store.verify(artifacts[name])
        except StoreError as fault:
            faults[name] = [str(fault)]
    version_fault = None
    if "register" in artifacts:
        try:
            version = get_version(home.tracking_uri, artifacts["register"].facts()["model_uri"])
        except ModelError as fault:  # deleted by a person
            unverified["the registered version"] = fault.what
        else:
            version_fault = _find_version_fault(home.tracking_uri, version)
    intact = [name for name, lines in faults.items() if not lines]
    return Verification(intact, [line for lines in faults.values() for line in lines], version_fault, unverified)


def _find_version_fault(tracking_uri: str, version: Version) -> ModelError | None:
    """What is wrong with the version's files, or with those of its run."""
    try:
        check_files(tracking_uri, version)
        if has_run(tracking_uri, version.run_id):  # deleted with its run
            check_run_files(tracking_uri, version)
    except ModelError as fault:
        return fault
    return None
