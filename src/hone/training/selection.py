"""Which evaluation on the validation rows is the best one: its metric decides on weights and early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.objectives.base import Objective

LOSS = "loss"


@dataclass(frozen=True)
class Selection:
    """The metric that decides, as in `valid_<metric>` of the history; its title, and whether lower is better."""

    metric: str
    title: str
    lower: bool
    share: bool

    def improves(self, value: float, loss: float, best: float, best_loss: float) -> bool:
        """Whether an evaluation is better than the best one; of two with the same value the one with the lower loss."""
        if value == best:
            return loss < best_loss
        return value < best if self.lower else value > best


def choose_selection(objective: Objective, metric: str) -> Selection:
    """The selection by `metric`: one of the objective's, `loss`, or '' for the main one.

    Without the main one while training (`Objective.training_metrics`) it is the loss. Raises ConfigError for a name of
    which no value is computed then.
    """
    measures = objective.training_metrics
    name = metric or (objective.main_metric if objective.main_metric in measures else LOSS)
    if name == LOSS:
        return Selection(LOSS, "Validation loss", lower=True, share=False)
    if name not in measures:
        raise ConfigError(
            f"{name} is not a metric of the validation rows while training",
            where="training.metric",
            fix=f"Name one of {', '.join(dict.fromkeys((*measures, LOSS)))}.",
        )
    measure = measures[name]
    return Selection(name, measure.title, measure.lower, measure.share)
