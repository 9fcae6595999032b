"""The Jaccard index of sets of shingle hashes: of many pairs at once, and of one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hone.curation.dedup.minhash import cuts, positions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hone.curation.dedup.minhash import I64, U64

BATCH = 1 << 21  # shingles compared at once: some 100 MB of working arrays


class ShingleSets:
    """Sets of shingle hashes, set after set with n + 1 offsets; `threshold` is the index from which two are alike."""

    def __init__(self, hashes: U64, offsets: I64, threshold: float) -> None:
        self._hashes, self._offsets, self._threshold = hashes, offsets, threshold
        self._set = lru_cache(maxsize=8192)(self._read)

    def alike(self, i: int, j: int) -> bool:
        """Whether the sets `i` and `j` are alike."""
        one, other = self._set(i), self._set(j)
        if min(len(one), len(other)) < self._threshold * max(len(one), len(other)):
            return False
        common = len(one & other)
        return common / (len(one) + len(other) - common) >= self._threshold

    def all_alike(self, i: I64, j: I64) -> npt.NDArray[np.bool_]:
        """Whether each of the sets `i` is alike to the one of `j` in its place."""
        import numpy as np

        counts = np.diff(self._offsets)
        sizes = np.concatenate([[0], np.cumsum(counts[i] + counts[j])])
        parts = [self._batch_alike(i[first:last], j[first:last]) for first, last in cuts(sizes, BATCH)]
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def _batch_alike(self, i: I64, j: I64) -> npt.NDArray[np.bool_]:
        """As `all_alike`, by one sort of (pair, hash, side): equal neighbours of two sides are common shingles."""
        import numpy as np

        rows = np.stack([i, j], axis=1).ravel()
        at, starts = positions(self._offsets, rows)
        owner = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(starts))
        pair_bits = np.uint64(len(i).bit_length())
        shift = np.uint64(64) - pair_bits
        one = np.uint64(1)
        hashes = self._hashes[at] >> (pair_bits + one) << one
        keys = np.sort((owner >> one << shift) | hashes | (owner & one))
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        pairs = (keys >> shift).astype(np.int64)
        common = np.bincount(pairs[1:][keys[1:] >> one == keys[:-1] >> one], minlength=len(i))
        of_both = np.bincount(pairs, minlength=len(i))
        enough: npt.NDArray[np.bool_] = common / (of_both - common) >= self._threshold
        return enough

    def _read(self, row: int) -> frozenset[int]:
        return frozenset(self._hashes[self._offsets[row] : self._offsets[row + 1]].tolist())
