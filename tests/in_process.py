"""The line in the process of the test: what decides an artifact, without Prefect and without processes to start.

An objective is tested on it: nine tenths of the time of `hone run` on a tiny model are imports, three times over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from hone.config.file import load_config
from hone.config.sections import RunConfig
from hone.environment import DEFAULTS, Home
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job, pin_base
from hone.pipeline.stages import STAGES, list_stages
from hone.store.artifact import Artifact
from hone.tracking.client import create_sqlite_store, default_tracking_uri
from hone.training import hardware, launch, loop


@contextmanager
def without_hone() -> Iterator[None]:
    """Within the block nothing of hone can be imported, whether it is there already or not."""
    known = [name for name in sys.modules if name.partition(".")[0] == "hone"]
    with patch.dict(sys.modules, dict.fromkeys(["hone", *known])):
        yield


@dataclass(frozen=True)
class Served:
    """A registered model that answers where there is no hone."""

    model: Any

    def predict(self, rows: Any, **more: Any) -> Any:
        """Its answers."""
        with without_hone():
            return self.model.predict(rows, **more)


@dataclass(frozen=True)
class Line:
    """A data folder in which stages are done here."""

    home: Home

    def __call__(self, conf: Path, *overrides: str) -> dict[str, Artifact]:
        """The artifacts of all stages of a configuration's file, by stage."""
        return self.go(load_config(conf, overrides))

    def go(self, config: RunConfig) -> dict[str, Artifact]:
        """The artifacts of all stages, by stage."""
        config = pin_base(config, self.home)
        found: dict[str, Artifact] = {}
        for stage in list_stages(config):
            found[stage] = run_stage(stage, Job(config, found, self.home))
            assert STAGES[stage].describe(found[stage])
            STAGES[stage].list_warnings(found[stage])
        return found

    def served(self, name: str) -> Served:
        """The registered model's newest candidate, as MLflow loads it where there is no hone."""
        import mlflow

        with default_tracking_uri(self.home.tracking_uri), without_hone():
            return Served(mlflow.pyfunc.load_model(f"models:/{name}@candidate"))


def begin(place: Path, changes: pytest.MonkeyPatch) -> Line:
    """A line with the environment of the `hone` command, until `changes` are undone."""
    for name, value in {**DEFAULTS, "HF_HUB_OFFLINE": "1"}.items():
        changes.setenv(name, value)
    changes.delenv("MLFLOW_TRACKING_URI", raising=False)
    changes.setattr(launch, "_run_attempt", _train_here)
    changes.setattr(hardware, "peak_flops", lambda *_: 1e12)  # measured, it takes longer than the training
    home = Home(place)
    create_sqlite_store(home.tracking_uri)
    return Line(home)


def _train_here(out: Path, on_event: Callable[[dict[str, Any]], None]) -> bool:
    """A training without a process of its own, which takes 5 s to import what is here already."""
    loop.run(json.loads((out / "spec.json").read_text("utf8")), on_event)
    return True
