"""One trial of a sweep: the line up to `train` with other values, which ends early if the study says so."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hone.errors import ConfigError, DataError, ModelError, NonFiniteLoss, OutOfMemory
from hone.pipeline.run import build_recipe, obtain_artifact
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages
from hone.store import layout
from hone.store.artifact import Artifact
from hone.sweep.space import Values
from hone.sweep.study import Study, Trial
from hone.sweep.trial_config import build_trial_config, select_values
from hone.training.history import read_entries
from hone.training.selection import LOSS

# What is wrong with the values of one trial, not with the sweep.
FAULTS = (ConfigError, DataError, ModelError, NonFiniteLoss, OutOfMemory)
SHARED = ("ingest", "curate")  # by all trials


class Pruned(BaseException):
    """A trial ends early. No Exception: nothing failed, and the training's run in MLflow is marked as killed."""


def run_trial(
    job: Job,
    study: Study,
    metric: str,
    number: int,
    values: Values,
    finished: Sequence[Trial],
    end: threading.Event,
) -> Trial:
    """Run trial `number` and return how it ended; `job` is the sweep's, `metric` the name of the validation metric.

    A training that the store has counts as one that ran now: it is complete, or it would have ended early. If `end` is
    set, the training ends and KeyboardInterrupt is raised.
    """
    start = time.monotonic()
    trial = Trial(number, dict(values), select_values(job.config, values), "failed", None, ())
    watch = _Watch(study, metric, finished, end)
    try:
        config = build_trial_config(job.config, values)
        made: dict[str, Artifact] = {name: job.inputs[name] for name in SHARED if name in job.inputs}
        for stage in list_stages(config):
            if stage in made:
                continue
            stage_job = replace(job, config=config, inputs=made, on_event=watch.hear)
            if stage == "train":
                key = build_recipe(stage, stage_job).key
                trial = replace(trial, key=key)
                watch.history = job.home.store.work_directory(stage, key) / layout.HISTORY
            made[stage], _ = obtain_artifact(stage, stage_job)
            if stage == "train":
                break
    except Pruned:
        job.home.store.discard_work("train", trial.key)
        return replace(
            trial, state="pruned", evaluations=tuple(watch.evaluations), seconds=_since(start), reason=watch.reason
        )
    except FAULTS as fault:
        return replace(trial, seconds=_since(start), reason=str(fault))
    return replace(_judge(trial, made["train"], watch), seconds=_since(start))


def _since(start: float) -> float:
    return round(time.monotonic() - start, 3)


def _judge(trial: Trial, trained: Artifact, watch: _Watch) -> Trial:
    """The trial with the figures of its training."""
    facts = trained.facts()
    figure = facts["valid_loss"] if watch.metric == LOSS else (facts["valid"] or {}).get(watch.metric)
    if not facts["valid_rows"]:
        raise ConfigError(
            "a sweep compares trials on validation rows, and there are none",
            where="sweep",
            fix="Set curation.split.valid above 0.",
        )
    evaluations = read_evaluations(trained.path / layout.HISTORY, watch.metric)
    planned = facts["steps"] if facts["stopped"] == "done" else math.inf
    trial = replace(trial, evaluations=tuple(value for _, value in evaluations))
    if watch.find_pruned(evaluations, planned):
        return replace(trial, state="pruned", evaluations=tuple(watch.evaluations), reason=watch.reason)
    if figure is None or not math.isfinite(figure):
        return replace(trial, reason=f"its validation metric {watch.metric} is no number")
    return replace(trial, state="complete", value=float(figure), loss=facts["valid_loss"])


def read_evaluations(history: Path, metric: str) -> list[tuple[int, float | None]]:
    """(step, metric) of each evaluation in a training's history."""
    evaluations = [entry for entry in read_entries(history) if "valid_loss" in entry]
    return [(int(entry["step"]), entry.get(f"valid_{metric}")) for entry in evaluations]


@dataclass
class _Watch:
    """Hears the events of a training, and ends it once its evaluations are worse than the study accepts.

    Evaluations are read from the history: an attempt that is resumed has some from before, and events may be lost.
    """

    study: Study
    metric: str
    finished: Sequence[Trial]
    end: threading.Event
    history: Path = field(default_factory=Path)
    planned: float = math.inf
    evaluations: Sequence[float | None] = ()
    reason: str = ""

    def hear(self, event: Mapping[str, Any]) -> None:
        """Raises Pruned or KeyboardInterrupt to end the training."""
        if self.end.is_set():
            raise KeyboardInterrupt
        if event["type"] == "started":
            self.planned = event["steps"]
        if event["type"] in ("started", "valid"):
            evaluations = read_evaluations(self.history, self.metric)
            if self.find_pruned(evaluations, self.planned):
                raise Pruned

    def find_pruned(self, evaluations: Sequence[tuple[int, float | None]], planned: float) -> bool:
        """Whether a training ends early at one of these evaluations; after its last step it has ended by itself."""
        figures = [value for step, value in evaluations if step < planned]
        count = self.study.find_pruned(figures, self.finished)
        if count is None:
            return False
        self.evaluations = figures[:count]
        self.reason = f"worse than the median of {sum(t.state == 'complete' for t in self.finished)} trials"
        return True
