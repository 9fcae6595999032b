"""What a sweep tries next, and which trial ends early: Optuna's samplers and pruners, asked without a memory of theirs.

The study is built from the trials' records for each question, with a seed of its own: the answer depends on the space,
the seed and the records alone. A sweep that was killed therefore goes on with the trials that it would have had.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hone.sweep.space import Space, Values, build_distributions, decode, encode, list_grid

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DRAWS = 100  # of values for one trial until they are new; a small space may have no others
RANDOM_TRIALS = 8  # of `tpe`, before it uses results; Optuna's default is 10, half of a sweep of 20
STATES = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial: its values by field, how it ended, and its validation metric.

    `changes` are the values without options that its method does not have. `evaluations` are the metric at each
    evaluation, None where it is no number. `value` is that of the weights which the training keeps, None unless it is
    complete. `key` is that of its training; `reason` explains why it failed or ended early.
    """

    number: int
    values: Values
    changes: Values
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    evaluations: tuple[float | None, ...]
    loss: float | None = None
    seconds: float = 0.0
    key: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """The question of a sweep. With `lower`, the lowest value is the best.

    `select` gives the values without those that make no difference: none are tried twice. A trial may end early after
    `after_evaluations` evaluations, once `after_trials` are complete; never if that is 0.
    """

    space: Space
    sampler: Literal["tpe", "random", "grid"]
    seed: int
    lower: bool
    after_evaluations: int = 0
    after_trials: int = 4
    select: Callable[[Values], Values] = dict

    def propose(self, number: int, finished: Sequence[Trial], running: Sequence[Values]) -> dict[str, Any] | None:
        """The values of trial `number`; None if the space has no values left that were not tried.

        `finished` are the earlier trials whose results may be used, `running` the values of the others.
        """
        if self.sampler == "grid":
            grid = list_grid(self.space)
            return grid[number] if number < len(grid) else None
        distributions = build_distributions(self.space)
        tried = [self.select(values) for values in (*(trial.values for trial in finished), *running)]
        for draw in range(DRAWS):
            study = self._build([self.seed, number, draw], finished, running)
            values = decode(self.space, study.ask(distributions).params)
            if self.select(values) not in tried:
                return values
        return None

    def find_pruned(self, evaluations: Sequence[float | None], finished: Sequence[Trial]) -> int | None:
        """The number of evaluations after which a trial with these ends, the first that suffices; None if it goes on.

        It ends if its best evaluation so far is worse than the median of the complete trials at the same evaluation.
        """
        import optuna

        if not self.after_evaluations or sum(t.state == "complete" for t in finished) < self.after_trials:
            return None
        pruner = optuna.pruners.MedianPruner(self.after_trials, self.after_evaluations)
        study = self._build([self.seed], finished, [])
        reported: dict[int, float] = {}
        for count, value in enumerate(evaluations, 1):
            if value is None:
                continue
            reported[count] = value
            trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(reported))
            if pruner.prune(study, trial):
                return count
        return None

    def measure_importances(self, trials: Sequence[Trial]) -> dict[str, float]:
        """The share of each field in the differences between the complete trials, by PED-ANOVA (arXiv:2304.10255).

        The most important first; empty with fewer than RANDOM_TRIALS complete trials, or if all are equally good.
        """
        import optuna

        complete = [trial for trial in trials if trial.state == "complete"]
        if len(complete) < RANDOM_TRIALS or len({trial.value for trial in complete}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            shares = optuna.importance.get_param_importances(self._build([self.seed], complete, []))
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def choose_best(self, trials: Sequence[Trial]) -> Trial | None:
        """The complete trial with the best value; of equal ones that with the lower loss, then the earlier one."""
        complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
        sign = 1 if self.lower else -1
        return min(complete, key=lambda t: (sign * (t.value or 0), t.loss or 0, t.number), default=None)

    def _build(self, seed: Sequence[int], finished: Sequence[Trial], running: Sequence[Values]) -> optuna.Study:
        import numpy as np
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        sampler: Any = optuna.samplers.RandomSampler(seed=number)
        if self.sampler == "tpe":
            sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=number)
        study = optuna.create_study(direction="minimize" if self.lower else "maximize", sampler=sampler)
        study.add_trials([self._freeze(trial.values, trial) for trial in finished])
        study.add_trials([self._freeze(values) for values in running])
        return study

    def _freeze(self, values: Values, trial: Trial | None = None) -> FrozenTrial:
        """A trial as Optuna records it; a running one without `trial`."""
        from optuna.trial import TrialState, create_trial

        states = dict(zip(STATES, (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL), strict=True))
        evaluations: Mapping[int, float] = {}
        if trial:
            evaluations = {count: value for count, value in enumerate(trial.evaluations, 1) if value is not None}
        value = trial.value if trial else None
        if trial and trial.state == "pruned" and evaluations:
            value = list(evaluations.values())[-1]  # as Optuna's own loop records it
        return create_trial(
            state=states[trial.state] if trial else TrialState.RUNNING,
            value=value,
            params={path: encode(value) for path, value in values.items()},
            distributions=build_distributions(self.space),
            intermediate_values=dict(evaluations),
        )
