from __future__ import annotations

import numpy as np
import pytest

from hone.training.sampler import Sampler

LENGTHS = np.random.default_rng(0).integers(4, 60, size=1003)


def _sampler(*, group: bool = True, seed: int = 1) -> Sampler:
    return Sampler(LENGTHS, 32, seed, group_by_length=group)


@pytest.mark.parametrize("group", [True, False])
def test_each_epoch_has_every_row_once(group: bool) -> None:
    sampler = _sampler(group=group)
    assert sampler.steps_per_epoch == 32
    for epoch in range(2):
        steps = range(epoch * 32, (epoch + 1) * 32)
        assert sorted(np.concatenate([sampler.rows(step) for step in steps])) == list(range(1003))


def test_any_step_can_be_asked_for_first() -> None:
    straight = _sampler()
    rows = [straight.rows(step) for step in range(70)]
    assert all((_sampler().rows(step) == rows[step]).all() for step in (69, 3, 40))


def test_epochs_and_seeds_differ() -> None:
    first = np.concatenate([_sampler().rows(step) for step in range(32)])
    second = np.concatenate([_sampler().rows(step) for step in range(32, 64)])
    other_seed = np.concatenate([_sampler(seed=2).rows(step) for step in range(32)])
    assert (first != second).mean() > 0.9
    assert (first != other_seed).mean() > 0.9


def test_grouping_saves_padding_and_mixes_lengths_over_the_epoch() -> None:
    def padded(group: bool) -> float:
        batches = [LENGTHS[_sampler(group=group).rows(step)] for step in range(32)]
        return sum(len(batch) * batch.max() for batch in batches) / LENGTHS.sum()

    assert padded(True) < 1.05
    assert padded(False) > 1.5
    longest = [LENGTHS[_sampler().rows(step)].max() for step in range(31)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_the_longest_row_comes_first() -> None:
    rows = _sampler(group=False).rows(5)
    assert (np.diff(LENGTHS[rows]) <= 0).all()
