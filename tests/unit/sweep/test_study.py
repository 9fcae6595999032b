"""What a sweep tries next, when it ends a trial, and how it goes on after a kill, without any training."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError
from hone.sweep.search import read_trials, search
from hone.sweep.space import Values, list_grid
from hone.sweep.study import Study, Trial

SPACE = {
    "training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
    "training.batch_size": [8, 16, 32],
}
STUDY = Study(SPACE, "tpe", seed=3, lower=False, after_evaluations=1, after_trials=2)


def accuracy(values: Values, share: float = 1.0) -> float:
    """A curve with its best value at a learning rate of 1e-3 and a batch of 16, `share` of the training into it."""
    distance = abs(math.log10(values["training.learning_rate"]) + 3) + (values["training.batch_size"] != 16) / 5
    return round(0.95 - 0.2 * distance - 0.1 * (1 - share), 6)


def train(number: int, values: Values, finished: Sequence[Trial], end: threading.Event) -> Trial:
    """A trial of four evaluations, ended early if the study says so."""
    evaluations = [accuracy(values, share) for share in (0.25, 0.5, 0.75)]
    ended = STUDY.find_pruned(evaluations, finished)
    trial = Trial(number, values, values, "complete", accuracy(values), (*evaluations, accuracy(values)), loss=1.0)
    if ended:
        return replace(trial, state="pruned", value=None, evaluations=tuple(evaluations[:ended]))
    return trial


def run(record: Path, study: Study = STUDY, trials: int = 24, parallel: int = 1, call: Any = train) -> list[Trial]:
    return search(study, trials=trials, parallel=parallel, record=record, run=call)


def test_results_guide_the_search_to_the_best_values(tmp_path: Path) -> None:
    best = STUDY.choose_best(run(tmp_path / "trials"))
    drawn = replace(STUDY, sampler="random")
    assert best and best.value and best.value > 0.92
    assert best.value > (drawn.choose_best(run(tmp_path / "random", drawn)) or best).value or 0


def test_some_trials_end_early_and_none_of_those_is_the_best(tmp_path: Path) -> None:
    trials = run(tmp_path / "trials")
    ended = [trial for trial in trials if trial.state == "pruned"]
    assert ended
    best = STUDY.choose_best(trials)
    assert best and best.value == max(accuracy(trial.values) for trial in trials)
    assert all(trial.number >= 2 for trial in ended)  # two are complete first


def test_the_lowest_loss_is_the_best_where_lower_is_better(tmp_path: Path) -> None:
    study = replace(STUDY, lower=True, after_evaluations=0)

    def lose(number: int, values: Values, finished: Sequence[Trial], end: threading.Event) -> Trial:
        return Trial(number, values, values, "complete", 1 - accuracy(values), ())

    trials = run(tmp_path / "trials", study, call=lose)
    best = study.choose_best(trials)
    assert best and best.value == min(trial.value or 9 for trial in trials)


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("seed", range(1, 8))
def test_a_killed_sweep_goes_on_with_the_trials_it_would_have_had(tmp_path: Path, seed: int, parallel: int) -> None:
    undisturbed = run(tmp_path / "undisturbed", parallel=parallel)
    draw, asked = random.Random(seed), []

    class Killed(BaseException):
        pass

    def die_at_times(number: int, *arguments: Any) -> Trial:
        asked.append(number)
        if draw.random() < 0.25:
            raise Killed
        return train(number, *arguments)

    for _ in range(100):
        try:
            continued = run(tmp_path / "trials", parallel=parallel, call=die_at_times)
        except Killed:
            continue
        break
    assert continued == undisturbed
    assert len(asked) > len(undisturbed)  # it was killed
    if parallel == 1:  # none that had ended was run again
        assert sorted(set(asked)) == list(range(24))


def test_the_order_in_which_parallel_trials_end_changes_nothing(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", parallel=3)
    last_first = threading.Semaphore(0)

    def reverse(number: int, *arguments: Any) -> Trial:
        """Trial 0 ends after trials 1 and 2."""
        if number == 0:
            assert last_first.acquire(timeout=60)
            assert last_first.acquire(timeout=60)
        trial = train(number, *arguments)
        if number in (1, 2):
            last_first.release()
        return trial

    assert run(tmp_path / "trials", parallel=3, call=reverse) == undisturbed


def test_a_damaged_record_costs_its_trial_alone(tmp_path: Path) -> None:
    record = tmp_path / "trials"
    undisturbed = run(record)
    lines = record.read_bytes().splitlines()
    damaged = {3: b'{"number": 3', 5: b"\xff\xfe", 7: json.dumps([1]).encode(), 9: lines[9].replace(b"state", b"stake")}
    # A digit that another value has, in a line that is JSON as before.
    damaged[11] = (
        lines[11].replace(b'"batch_size": 8', b'"batch_size": 9').replace(b"0.8", b"0.9").replace(b"0.7", b"0.8")
    )
    assert damaged[11] != lines[11]
    record.write_bytes(b"\n".join(damaged.get(i, line) for i, line in enumerate(lines)) + b"\n" + lines[0][:40])
    asked = []

    def count(number: int, *arguments: Any) -> Trial:
        asked.append(number)
        return train(number, *arguments)

    assert run(record, call=count) == undisturbed
    assert asked == sorted(damaged)
    assert len(read_trials(record)) == len(undisturbed)


def test_the_end_of_one_trial_ends_those_beside_it(tmp_path: Path) -> None:
    begun, ends = threading.Semaphore(0), []

    def fail(number: int, values: Values, finished: Sequence[Trial], end: threading.Event) -> Trial:
        if number == 0:
            assert begun.acquire(timeout=60)
            raise OSError("the disk is gone")
        begun.release()
        ends.append(end.wait(60))
        return train(number, values, finished, end)

    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path / "trials", parallel=2, call=fail)
    assert ends == [True]


def test_no_values_are_tried_twice_and_a_small_space_ends_the_sweep(tmp_path: Path) -> None:
    study = replace(STUDY, space={"training.batch_size": [8, 16, 32], "training.learning_rate": [1e-3, 1e-4]})
    trials = run(tmp_path / "trials", study, trials=50)
    tried = [tuple(trial.values.values()) for trial in trials]
    assert len(tried) == len(set(tried)) == 6


def test_values_that_make_no_difference_are_not_tried_twice(tmp_path: Path) -> None:
    space = {"method.kind": ["full", "lora"], "method.rank": [8, 16]}

    def select(values: Values) -> Values:
        return {
            name: value for name, value in values.items() if values["method.kind"] == "lora" or name != "method.rank"
        }

    def train_nothing(number: int, values: Values, *_: Any) -> Trial:
        return Trial(number, values, select(values), "complete", 0.5, ())

    study = Study(space, "random", 1, False, select=select)
    trials = run(tmp_path / "trials", study, call=train_nothing)
    assert sorted(map(str, (trial.changes for trial in trials))) == sorted(
        map(
            str,
            (
                {"method.kind": "full"},
                {"method.kind": "lora", "method.rank": 8},
                {"method.kind": "lora", "method.rank": 16},
            ),
        )
    )


def test_a_grid_has_all_combinations_in_order(tmp_path: Path) -> None:
    space = {
        "training.batch_size": {"low": 8, "high": 24, "step": 8},
        "method": [{"kind": "full"}, {"kind": "lora", "rank": 4}],
    }
    trials = run(tmp_path / "trials", Study(space, "grid", 1, False), call=_complete)
    assert [trial.values["training.batch_size"] for trial in trials] == [8, 8, 16, 16, 24, 24]
    assert [trial.values["method"]["kind"] for trial in trials] == ["full", "lora"] * 3
    with pytest.raises(ConfigError, match="a grid needs single values"):
        list_grid(SPACE)


def _complete(number: int, values: Values, *_: Any) -> Trial:
    return Trial(number, values, values, "complete", 0.5, ())


def test_a_method_as_a_whole_is_a_value(tmp_path: Path) -> None:
    methods = [{"kind": "full"}, {"kind": "lora", "rank": 4}, {"kind": "lora", "rank": 64}]
    study = Study({"method": methods}, "tpe", 1, False)
    trials = run(tmp_path / "trials", study, call=_complete)
    assert sorted(str(trial.values["method"]) for trial in trials) == sorted(map(str, methods))
    assert run(tmp_path / "trials", study, call=_fail) == trials  # from the record


def _fail(*_: Any) -> Trial:
    raise AssertionError("a recorded trial was run again")


def test_importance_is_with_the_field_that_makes_the_difference(tmp_path: Path) -> None:
    space = {"training.learning_rate": SPACE["training.learning_rate"], "training.seed": {"low": 1, "high": 100}}
    study = Study(space, "random", 5, False)

    def by_rate(number: int, values: Values, *_: Any) -> Trial:
        return Trial(number, values, values, "complete", accuracy({**values, "training.batch_size": 16}), ())

    trials = run(tmp_path / "trials", study, trials=30, call=by_rate)
    importances = study.measure_importances(trials)
    assert list(importances) == ["training.learning_rate", "training.seed"]
    assert importances["training.learning_rate"] > 0.7
    assert sum(importances.values()) == pytest.approx(1)
    assert study.measure_importances(trials[:4]) == {}


def test_failed_trials_are_no_results(tmp_path: Path) -> None:
    def fail_for_large_rates(number: int, values: Values, *arguments: Any) -> Trial:
        if values["training.learning_rate"] > 1e-3:
            return Trial(number, values, values, "failed", None, (), reason="the loss is nan")
        return train(number, values, *arguments)

    trials = run(tmp_path / "trials", call=fail_for_large_rates)
    best = STUDY.choose_best(trials)
    assert any(trial.state == "failed" for trial in trials)
    assert best and best.values["training.learning_rate"] <= 1e-3
    assert STUDY.choose_best([replace(trial, state="failed", value=None) for trial in trials]) is None
