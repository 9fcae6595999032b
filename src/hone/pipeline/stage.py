"""Stage, the definition of a stage: what decides its output and how to make it; and Job, one execution of it.

Only a stage's file in `stages/` reads its section of the configuration: the functions that it calls take values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from hone.sweep.study import Trial
from hone.tracking.reader import SCHEME, get_version

Slot = Callable[[], AbstractContextManager[None]]
CallTrial = Callable[[int, str, Callable[[], Trial]], Trial]


@dataclass(frozen=True)
class Job:
    """One stage of one run: configuration, input artifacts by stage name, output directory and key.

    `slot` is entered while a training uses its device; the caller limits with it how many train at once. `on_event` is
    called with every event of a training, and ends it by raising. `call_trial` gets the number of a sweep's trial, its
    values in words, and a function that runs it, which it calls. `damaged` are the faults of artifacts, by stage, that
    are made again for that reason.
    """

    config: RunConfig
    inputs: Mapping[str, Artifact]
    home: Home
    out: Path = field(default_factory=Path)
    on_progress: OnProgress = ignore
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    slot: Slot = nullcontext
    on_event: Callable[[Mapping[str, Any]], None] = lambda _: None
    call_trial: CallTrial = lambda _number, _words, run: run()
    damaged: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def path(self, stage: str) -> Path:
        """The directory of an earlier stage's artifact."""
        return self.inputs[stage].path

    def base(self) -> BaseModel:
        """The base model on this machine, downloaded if necessary."""
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

    make              writes the output of a job into its directory `out`
    config            the part of the configuration that decides the output
    code              the modules that decide the output; their imports are followed
    libraries         the third-party distributions whose versions decide the output
    inputs            the stages whose artifacts it uses
    optional_inputs   the stages whose artifacts it uses if the caller has them
    needs_base        whether it also uses the base model, an artifact if the configuration makes it from scratch
    applies           whether a run with this configuration has the stage
    files             further files of the package that decide the output (templates), relative to the package
    external_digests  digests, by name, of inputs outside the store
    stale_reason      why an artifact no longer matches what is outside the store; '' if it does
    describe          the result in figures, for logs: `1,320 of 49,170 rows kept: train 882, ...`
    list_warnings     what was logged as a warning when the artifact was made, for a later run that uses it
    resumable         whether the work directory of an interrupted job is passed to the next one
    """

    make: Callable[[Job], Product]
    config: Callable[[RunConfig], dict[str, Any]]
    code: Callable[[RunConfig], list[str]]
    libraries: Callable[[RunConfig], list[str]]
    inputs: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    needs_base: bool = False
    applies: Callable[[RunConfig], bool] = lambda _: True
    files: tuple[str, ...] = ()
    external_digests: Callable[[Job], dict[str, str]] = lambda _: {}
    stale_reason: Callable[[Artifact], str] = lambda _: ""
    describe: Callable[[Artifact], str] = lambda artifact: f"{artifact.rows:,} rows"
    list_warnings: Callable[[Artifact], list[str]] = lambda _: []
    resumable: bool = False


def pin_base(config: RunConfig, home: Home) -> RunConfig:
    """The configuration with the base model's alias replaced by its version number: aliases may move during a run."""
    base = config.model.base
    if not base.startswith(SCHEME):
        return config
    model = config.model.model_copy(update={"base": get_version(home.tracking_uri, base).uri})
    return config.model_copy(update={"model": model})


def build_part(table: Mapping[str, Any], part: Part) -> Any:
    """Build the source, step, objective or method that the configuration describes."""
    return table[part.kind](**part.options())


def get_module(table: Mapping[str, Any], part: Part) -> str:
    """The name of the module that defines the part's class."""
    return str(table[part.kind].__module__)


def list_libraries(table: Mapping[str, Any], part: Part) -> list[str]:
    """The distributions that the part declares its output to depend on."""
    return list(getattr(table[part.kind], "libraries", ()))


def list_data_options(config: RunConfig) -> dict[str, Any]:
    """The objective's options that decide the rows, without the options that affect training alone."""
    options = config.objective.model_dump()
    return {name: value for name, value in options.items() if name not in learning(OBJECTIVES[config.objective.kind])}


def list_counts(counts: Mapping[str, int]) -> str:
    """`train 882, test 330`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def compute_base_digest(job: Job) -> dict[str, str]:
    """The digest of the base model's files, by the name it has in reasons for a miss."""
    return {"base model": job.base().compute_digest(job.home.store.memo.digest)}
