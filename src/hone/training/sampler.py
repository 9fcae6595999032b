"""Which rows make which optimizer step: a pure function of seed and step, so that a resumed run goes on exactly."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Batches that are sorted by length together. On banking77 (16 tokens in the mean, batches of 32) random batches are
# padded to 2.9 times their tokens, sorted groups of 50 to 1.07; more would make each epoch's batches more alike.
GROUP = 50


class Sampler:
    """Rows by optimizer step: each epoch has every row once, in a seeded order of its own.

    With `group_by_length` batches hold rows of like length and come in random order. The effective batch is what is
    composed here: how it is split into micro-batches changes nothing.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, *, group_by_length: bool) -> None:
        self._lengths, self._batch_size, self._seed, self._group = lengths, batch_size, seed, group_by_length
        self.steps_per_epoch = -(-len(lengths) // batch_size)
        self._epoch = lru_cache(maxsize=1)(self._batches)

    def rows(self, step: int) -> np.ndarray:
        """The indices of the rows of optimizer step `step`, counted from 0 over all epochs; the longest row first."""
        epoch, position = divmod(step, self.steps_per_epoch)
        rows: np.ndarray = self._epoch(epoch)[position]
        return rows

    def _batches(self, epoch: int) -> list[np.ndarray]:
        import numpy as np

        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._lengths))
        if self._group:
            size = GROUP * self._batch_size
            order = np.concatenate([self._longest_first(order[i : i + size]) for i in range(0, len(order), size)])
        batches = [order[i : i + self._batch_size] for i in range(0, len(order), self._batch_size)]
        if self._group:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return [self._longest_first(batch) for batch in batches]

    def _longest_first(self, rows: np.ndarray) -> np.ndarray:
        """Longest first, so that a batch that does not fit into memory fails with its first micro-batch."""
        import numpy as np

        return rows[np.argsort(-self._lengths[rows], kind="stable")]
