"""Which texts say nearly the same: pairs found by MinHash and locality-sensitive hashing, each proved by its Jaccard.

Similarity is the Jaccard index of two texts' sets of word runs (shingles), without regard to case, spacing and
punctuation. What is reported is at or above the threshold for certain; of pairs just at the threshold no more than
`minhash.MISSED` are missed, and fewer of those above it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from hone.curation.dedup.jaccard import ShingleSets
from hone.curation.dedup.minhash import buckets, digests, hash_words, positions, shingles, signatures

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hone.curation.dedup.minhash import I64, U32, U64

SHINGLE, NUM_PERM = 3, 128
FEW = 32  # rows of a bucket up to which all its pairs are listed; larger buckets are gone through row by row
DEVIATIONS = 6  # a pair whose signatures agree by so many standard deviations too little is ruled out unseen


def clusters(
    texts: Sequence[str],
    threshold: float,
    *,
    apart: Sequence[Hashable] = (),
    shingle: int = SHINGLE,
    num_perm: int = NUM_PERM,
) -> list[int]:
    """For each text the index of the first text of its cluster: those linked by pairs of `threshold` or more.

    Texts for which `apart` differs are never linked.
    """
    found = _Alike(texts, apart, threshold, shingle, num_perm)
    kind, forest = found.kind, _Forest(len(found.kind))
    for i, j in found.pairs:
        if kind[i] == kind[j]:
            forest.join(i, j)
    for crowd in found.crowds:
        for one in sorted({kind[row] for row in crowd.tolist()}):
            _join_crowd(crowd[[kind[row] == one for row in crowd.tolist()]], forest, found)
    first: dict[int, int] = {}
    return [first.setdefault(forest.root(number), index) for index, number in enumerate(found.numbers)]


def near_pairs(
    texts: Sequence[str],
    others: Sequence[str],
    threshold: float,
    *,
    shingle: int = SHINGLE,
    num_perm: int = NUM_PERM,
) -> list[tuple[int, int]]:
    """For each of `texts` that says nearly the same as some of `others`: its index, and that of one such other.

    Ascending; texts like none of them are left out.
    """
    found = _Alike([*texts, *others], (), threshold, shingle, num_perm)
    ours, theirs = found.numbers[: len(texts)], found.numbers[len(texts) :]
    first: dict[int, int] = {}
    for index, number in enumerate(theirs):
        first.setdefault(number, index)
    matches = {number: first[number] for number in ours if number in first}
    for i, j in (
        *found.pairs,
        *((j, i) for i, j in found.pairs),
        *found.crowded(set(ours) - set(matches), set(theirs)),
    ):
        if j in first:
            matches.setdefault(i, first[j])
    return [(index, matches[number]) for index, number in enumerate(ours) if number in matches]


class _Alike:
    """Pairs of texts that are similar.

    Texts of the same words and the same kind (`apart`) have one number; `numbers` gives that of each text, and `kind`
    the kind of each number. `pairs` are similar numbers i < j, all but those that share nothing but `crowds`: buckets
    too large to list their pairs.
    """

    def __init__(
        self, texts: Sequence[str], apart: Sequence[Hashable], threshold: float, shingle: int, num_perm: int
    ) -> None:
        import numpy as np

        kinds = _numbered(apart) if apart else np.zeros(len(texts), np.int64)
        first, numbers, hashes, offsets = _shingles_of_distinct(texts, kinds, shingle)
        self.numbers: list[int] = numbers.tolist()
        self.kind: list[int] = kinds[first].tolist()
        self.sets = ShingleSets(hashes, offsets, threshold)
        self._signed = signatures(hashes, offsets, num_perm)
        self._least = num_perm * threshold - DEVIATIONS * (num_perm * threshold * (1 - threshold)) ** 0.5
        i, j, self.crowds = _candidates(self._signed, threshold)
        plausible = self._plausible(i, j)
        i, j = i[plausible], j[plausible]
        alike = self.sets.all_alike(i, j)
        self.pairs: list[tuple[int, int]] = list(zip(i[alike].tolist(), j[alike].tolist(), strict=True))

    def agreement(self, crowd: I64, row: int) -> I64:
        """Positions in `crowd` whose signatures do not rule out similarity with `row`."""
        import numpy as np

        return np.flatnonzero(self._plausible(crowd, np.array([row])))

    def crowded(self, left: set[int], right: set[int]) -> Iterator[tuple[int, int]]:
        """For each number in `left` and each crowd one similar number in `right`, if there is one."""
        for crowd in self.crowds:
            theirs = crowd[[row in right for row in crowd.tolist()]]
            for row in crowd.tolist() if len(theirs) else ():
                if row in left:
                    plausible = theirs[self.agreement(theirs, row)].tolist()
                    yield from ((row, other) for other in islice((o for o in plausible if self.sets.alike(row, o)), 1))

    def _plausible(self, i: I64, j: I64) -> npt.NDArray[np.bool_]:
        """Whether the signatures of the rows `i` do not rule out similarity with those of the rows `j`."""
        import numpy as np

        agreeing = [
            (self._signed[i[at : at + 8192]] == self._signed[j if len(j) == 1 else j[at : at + 8192]]).sum(axis=1)
            for at in range(0, len(i), 8192)
        ]
        enough: npt.NDArray[np.bool_] = np.concatenate([np.zeros(0, np.int64), *agreeing]) >= self._least
        return enough


def _candidates(signed: U32, threshold: float) -> tuple[I64, I64, list[I64]]:
    """Pairs i < j of rows that share a bucket, each once and in order, and the buckets of more than FEW rows."""
    import numpy as np

    count = max(1, len(signed))
    codes = np.zeros(0, np.int64)  # i * count + j
    crowds: list[I64] = []
    for rows, bucket in buckets(signed, threshold):
        few = np.bincount(bucket)[bucket] <= FEW
        crowds += _apart(rows[~few], bucket[~few])
        i, j = _pairs(rows[few], bucket[few])
        codes = np.sort(np.concatenate([codes, i * count + j]))
        codes = codes[np.diff(codes, prepend=-1) > 0]
    return codes // count, codes % count, crowds


def _numbered(kinds: Sequence[Hashable]) -> I64:
    """A number for each kind, in the order in which they come."""
    import numpy as np

    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(kind, len(number)) for kind in kinds], np.int64)


def _shingles_of_distinct(texts: Sequence[str], kinds: I64, size: int) -> tuple[I64, I64, U64, I64]:
    """A text of each number, the number of each text, and the shingles of each number with their offsets."""
    import numpy as np

    words, offsets = hash_words(texts)
    keys = digests(words, offsets) + kinds.astype(np.uint64)
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    at, offsets = positions(offsets, first)
    return first, numbers, *shingles(words[at], offsets, size)


def _apart(rows: I64, bucket: I64) -> list[I64]:
    """The rows of each bucket."""
    import numpy as np

    return np.split(rows, np.flatnonzero(np.diff(bucket)) + 1) if len(rows) else []


def _pairs(rows: I64, bucket: I64) -> tuple[I64, I64]:
    """All pairs i < j of rows in one bucket."""
    import numpy as np

    i, j = [rows[:0]], [rows[:0]]
    for distance in range(1, FEW):
        together = bucket[distance:] == bucket[:-distance]
        if not together.any():
            break
        i.append(rows[:-distance][together])
        j.append(rows[distance:][together])
    return np.concatenate(i), np.concatenate(j)


def _join_crowd(crowd: I64, forest: _Forest, found: _Alike) -> None:
    """Join what is similar in a large bucket; rows already in one cluster are not compared."""
    import numpy as np

    trees = np.array([forest.root(row) for row in crowd.tolist()])
    for at in range(1, len(crowd)):
        if (trees[:at] == trees[at]).all():
            continue
        open_ = found.agreement(crowd[:at], int(crowd[at]))
        while len(open_ := open_[trees[open_] != trees[at]]):
            if found.sets.alike(int(crowd[open_[0]]), int(crowd[at])):
                forest.join(int(crowd[open_[0]]), int(crowd[at]))
                trees[trees == trees[at]] = trees[open_[0]]
            open_ = open_[1:]


class _Forest:
    """Disjoint sets of the numbers below n (Tarjan, 1975), each named by its least member."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, i: int) -> int:
        """The least member of the set of `i`."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one set of those of `i` and `j`."""
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low
