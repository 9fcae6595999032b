"""One trial of a sweep: the line up to `train` with other values, which ends early if the study says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from hone.errors import ConfigError, DataError, ModelError, NonFiniteLoss, OutOfMemory
from hone.pipeline.run import build_recipe, obtain_artifact
from hone.pipeline.stage import Job, pin_base
from hone.pipeline.stages import list_stages
from hone.store import layout
from hone.store.artifact import Artifact
from hone.sweep.space import Values
from hone.sweep.study import Study, Trial
from hone.sweep.trial_config import build_trial_config, select_values
from hone.sweep.watch import Pruned, Watch, judge

# What is wrong with the values of one trial, not with the sweep.
FAULTS = (ConfigError, DataError, ModelError, NonFiniteLoss, OutOfMemory)
SHARED = ("ingest", "curate")  # by all trials


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
    watch = Watch(study, metric, finished, end)
    try:
        config = pin_base(build_trial_config(job.config, values), job.home)
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
                watch.history = made[stage].path / layout.HISTORY
                break
    except Pruned:
        job.home.store.discard_work("train", trial.key)
        return replace(
            trial, state="pruned", evaluations=tuple(watch.evaluations), seconds=_since(start), reason=watch.reason
        )
    except FAULTS as fault:
        return replace(trial, seconds=_since(start), reason=str(fault))
    return replace(judge(trial, made["train"].facts(), watch), seconds=_since(start))


def _since(start: float) -> float:
    return round(time.monotonic() - start, 3)
