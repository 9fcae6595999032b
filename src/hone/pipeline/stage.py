"""What a stage is: what decides its output, and how it is done; and one job of it.

A stage's file in `stages/` is the one place where its section of the configuration is taken apart: the functions
that it calls take values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.config.parts import Part
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.models.locate import BaseModel, locate_base_model
from hone.objectives import OBJECTIVES
from hone.parts.options import learning
from hone.pretraining import scratch
from hone.progress import OnProgress, ignore
from hone.store.artifact import Artifact, Product
from hone.tracking.reader import SCHEME, get_version

Slot = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Job:
    """One stage of one run: its configuration, the artifacts it uses by stage name, where it may write, its key.

    `slot` is entered while a training uses its device: who hands it in decides how many may at once.
    """

    config: RunConfig
    inputs: Mapping[str, Artifact]
    home: Home
    out: Path = field(default_factory=Path)
    on_progress: OnProgress = ignore
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    slot: Slot = nullcontext

    def path(self, stage: str) -> Path:
        """The directory of the artifact of an earlier stage."""
        return self.inputs[stage].path

    def base(self) -> BaseModel:
        """The base model, on this machine."""
        model = self.config.model
        if model.scratch:
            path = self.path("base") / scratch.FOLDER
            return BaseModel(f"{model.scratch.architecture} from scratch", path, "", model.licence or "unknown")
        return locate_base_model(
            model.base,
            model.revision,
            model.licence,
            tracking_uri=self.home.tracking_uri,
            downloads=self.home.downloads,
            ignore_code=model.ignore_code,
            trust_code=model.trust_code,
        )


@dataclass(frozen=True)
class Stage:
    """What decides a stage's output, and the function that makes it.

    make        writes the output of a job into its directory `out`
    config      the part of the configuration that decides the output
    code        the modules that decide it; what they import is followed
    libraries   the third-party distributions whose versions decide it
    inputs      the stages whose artifacts it uses
    needs_base  whether it also uses the base model, which is an artifact where the configuration makes it
    applies     whether a run of the configuration has this stage
    files       further files of the package that decide it (templates), relative to it
    outside     digests, by name, of what lies outside the store and decides it
    stale       why an artifact no longer says the truth about what lies outside the store; '' where it does
    resumable   whether an interrupted job's directory is handed to the next one
    """

    make: Callable[[Job], Product]
    config: Callable[[RunConfig], dict[str, Any]]
    code: Callable[[RunConfig], list[str]]
    libraries: Callable[[RunConfig], list[str]]
    inputs: tuple[str, ...] = ()
    needs_base: bool = False
    applies: Callable[[RunConfig], bool] = lambda _: True
    files: tuple[str, ...] = ()
    external_digests: Callable[[Job], dict[str, str]] = lambda _: {}
    stale_reason: Callable[[Artifact], str] = lambda _: ""
    resumable: bool = False


def pin_base(config: RunConfig, home: Home) -> RunConfig:
    """The configuration with a model version's number in place of its alias, which may move while the line runs."""
    base = config.model.base
    if not base.startswith(SCHEME):
        return config
    model = config.model.model_copy(update={"base": get_version(home.tracking_uri, base).uri})
    return config.model_copy(update={"model": model})


def build_part(table: Mapping[str, Any], part: Part) -> Any:
    """The source, step, objective or method that the configuration describes."""
    return table[part.kind](**part.options())


def get_module(table: Mapping[str, Any], part: Part) -> str:
    """The module that the part's class is defined in."""
    return str(table[part.kind].__module__)


def list_libraries(table: Mapping[str, Any], part: Part) -> list[str]:
    """The distributions that the part says its output depends on."""
    return list(getattr(table[part.kind], "libraries", ()))


def list_data_options(config: RunConfig) -> dict[str, Any]:
    """The objective's options that decide the rows: without those that only say how rows are learned from."""
    options = config.objective.model_dump()
    return {name: value for name, value in options.items() if name not in learning(OBJECTIVES[config.objective.kind])}


def compute_base_digest(job: Job) -> dict[str, str]:
    """The digest of the base model's files."""
    return {"base model": job.base().compute_digest(job.home.store.memo.digest)}
