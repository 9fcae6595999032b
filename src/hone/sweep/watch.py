"""A training that is watched as a trial: it ends early if its evaluations are worse than the study accepts."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hone.errors import ConfigError
from hone.sweep.study import Study, Trial
from hone.training.history import read_entries
from hone.training.selection import LOSS


class Pruned(BaseException):
    """A trial ends early. No Exception: nothing failed, and the training's run in MLflow is marked as killed."""


@dataclass
class Watch:
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


def judge(trial: Trial, facts: Mapping[str, Any], watch: Watch) -> Trial:
    """The trial with the figures of its training, whose training.json has `facts`.

    Raises ConfigError if there are no validation rows.
    """
    figure = facts["valid_loss"] if watch.metric == LOSS else (facts["valid"] or {}).get(watch.metric)
    if not facts["valid_rows"]:
        raise ConfigError(
            "a sweep compares trials on validation rows, and there are none",
            where="sweep",
            fix="Set curation.split.valid above 0.",
        )
    evaluations = read_evaluations(watch.history, watch.metric)
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
