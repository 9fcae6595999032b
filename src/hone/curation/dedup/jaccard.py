"""The Jaccard index of sets of shingle hashes, for single pairs and for many pairs at once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hone.curation.dedup.minhash import item_positions, row_ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hone.curation.dedup.minhash import I64, U64

BATCH = 1 << 21  # shingles compared at once: about 100 MB of working arrays


class ShingleSets:
    """n concatenated sets of shingle hashes with n + 1 offsets; two sets are alike from an index of `threshold` on."""

    def __init__(self, hashes: U64, offsets: I64, threshold: float) -> None:
        self._hashes, self._offsets, self._threshold = hashes, offsets, threshold
        self._set = lru_cache(maxsize=8192)(self._build_set)

    def alike(self, i: int, j: int) -> bool:
        """Whether the sets `i` and `j` are alike."""
        left_set, right_set = self._set(i), self._set(j)
        if min(len(left_set), len(right_set)) < self._threshold * max(len(left_set), len(right_set)):
            return False
        shared = len(left_set & right_set)
        return shared / (len(left_set) + len(right_set) - shared) >= self._threshold

    def all_alike(self, i: I64, j: I64) -> npt.NDArray[np.bool_]:
        """Whether the sets i[k] and j[k] are alike, for each k."""
        import numpy as np

        counts = np.diff(self._offsets)
        sizes = np.concatenate([[0], np.cumsum(counts[i] + counts[j])])
        parts = [self._batch_alike(i[first:last], j[first:last]) for first, last in row_ranges(sizes, BATCH)]
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def _batch_alike(self, i: I64, j: I64) -> npt.NDArray[np.bool_]:
        """As `all_alike`, by one sort of (pair, hash, side): equal neighbours of both sides are common shingles."""
        import numpy as np

        rows = np.stack([i, j], axis=1).ravel()
        hash_indices, starts = item_positions(self._offsets, rows)
        owner = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(starts))
        pair_bits = np.uint64(len(i).bit_length())
        shift = np.uint64(64) - pair_bits
        one_bit = np.uint64(1)
        hashes = self._hashes[hash_indices] >> (pair_bits + one_bit) << one_bit
        keys = np.sort((owner >> one_bit << shift) | hashes | (owner & one_bit))
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        pairs = (keys >> shift).astype(np.int64)
        common = np.bincount(pairs[1:][keys[1:] >> one_bit == keys[:-1] >> one_bit], minlength=len(i))
        union = np.bincount(pairs, minlength=len(i))
        is_alike: npt.NDArray[np.bool_] = common / (union - common) >= self._threshold
        return is_alike

    def _build_set(self, row: int) -> frozenset[int]:
        return frozenset(self._hashes[self._offsets[row] : self._offsets[row + 1]].tolist())
