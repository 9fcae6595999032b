"""Near-duplicate texts: pairs found by MinHash and locality-sensitive hashing, each verified by its Jaccard index.

Similarity is the Jaccard index of two texts' sets of word runs (shingles), ignoring case and spacing. Shingles of many
texts can be left out: a footer or a template that half of the texts share says nothing about what is in them. Every
reported pair is at or above the threshold; of pairs just at the threshold a share of at most `minhash.MISSED` is
missed, and less of those above it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

from hone.curation.dedup.jaccard import ShingleSets
from hone.curation.dedup.minhash import (
    compute_signatures,
    digest_texts,
    drop_common,
    find_buckets,
    hash_shingles,
    hash_words,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hone.curation.dedup.minhash import I64, U32, U64

SHINGLE, NUM_PERM = 3, 128
FEW = 32  # buckets up to this size are expanded to all pairs; larger ones are processed row by row
FEW_COMMON = 10  # a shingle of no more texts than this is never left out as common
DEVIATIONS = 6  # a pair whose signature agreement is this many standard deviations too low is skipped unverified


class Texts(Protocol):
    """A number of texts, which are read once: a list, or texts that are made while they are read."""

    def __len__(self) -> int:
        """The number of texts."""

    def __iter__(self) -> Iterator[str]:
        """The texts."""


def clusters(
    texts: Iterable[str],
    threshold: float,
    *,
    apart: Sequence[Hashable] = (),
    common: float = 1.0,
    chained: bool = True,
    shingle: int = SHINGLE,
    num_perm: int = NUM_PERM,
) -> list[int]:
    """For each text the index of the first text of its cluster; pairs of similarity `threshold` or more are linked.

    Texts with different values in `apart` are never linked. Shingles that more than the share `common` of the texts
    have are left out, unless a text has no others. Without `chained`, each text is itself similar to the first one of
    its cluster: a chain of similar pairs whose ends differ is divided.
    """
    similar = _Alike(texts, apart, threshold, common, shingle, num_perm)
    forest = _Forest(len(similar.first))
    for i, j in similar.pairs:
        forest.join(i, j)
    for crowd in similar.crowds:
        _join_crowd(crowd, forest, similar)
    order = sorted(range(len(similar.first)), key=similar.first.__getitem__)
    leaders = {number: forest.root(number) for number in order}
    if not chained:
        leaders = _divide_chains(order, leaders, similar)
    first_index: dict[int, int] = {}
    return [first_index.setdefault(leaders[number], index) for index, number in enumerate(similar.numbers)]


def near_pairs(
    texts: Texts,
    others: Texts,
    threshold: float,
    *,
    apart: Sequence[Hashable] = (),
    common: float = 1.0,
    shingle: int = SHINGLE,
    num_perm: int = NUM_PERM,
) -> list[tuple[int, int]]:
    """For each of `texts` that is a near-duplicate of any of `others`: its index, and the index of one such other.

    Sorted by text; texts without a near-duplicate are left out. `apart`, with a value for each of `texts` and then of
    `others`, and `common` are those of `clusters`.
    """
    similar = _Alike(chain(texts, others), apart, threshold, common, shingle, num_perm)
    text_numbers, other_numbers = similar.numbers[: len(texts)], similar.numbers[len(texts) :]
    first_other: dict[int, int] = {}
    for index, number in enumerate(other_numbers):
        first_other.setdefault(number, index)
    matches = {number: first_other[number] for number in text_numbers if number in first_other}
    for i, j in (
        *similar.pairs,
        *((j, i) for i, j in similar.pairs),
        *similar.crowded(set(text_numbers) - set(matches), set(other_numbers)),
    ):
        if j in first_other:
            matches.setdefault(i, first_other[j])
    return [(index, matches[number]) for index, number in enumerate(text_numbers) if number in matches]


def join_groups(leaders: Sequence[int], others: Sequence[int]) -> list[int]:
    """For each item the first item of its group, when the groups of both lists are joined where they overlap."""
    forest = _Forest(len(leaders))
    for item, both in enumerate(zip(leaders, others, strict=True)):
        for leader in both:
            forest.join(item, leader)
    return [forest.root(item) for item in range(len(leaders))]


class _Alike:
    """Pairs of similar texts of one kind (`apart`).

    Texts with the same words and the same kind share a number: `numbers` has the number of each text, `first` the
    first text of each number. `pairs` are similar numbers i < j, except those that only share `crowds`: buckets too
    large to expand to all pairs, each of one kind.
    """

    def __init__(
        self,
        texts: Iterable[str],
        apart: Sequence[Hashable],
        threshold: float,
        common: float,
        shingle: int,
        num_perm: int,
    ) -> None:
        kind, first, numbers, hashes, offsets = _shingles_of_distinct(texts, apart, shingle)
        self.numbers: list[int] = numbers.tolist()
        self.first: list[int] = first.tolist()
        if common < 1:
            hashes, offsets = drop_common(hashes, offsets, max(FEW_COMMON, common * len(first)))
        self.sets = ShingleSets(hashes, offsets, threshold)
        self._signed = compute_signatures(hashes, offsets, num_perm)
        self._min_agreement = num_perm * threshold - DEVIATIONS * (num_perm * threshold * (1 - threshold)) ** 0.5
        i, j, crowds = _candidates(self._signed, threshold)
        self.crowds = [part for crowd in crowds for part in _split_by(kind[crowd], crowd)]
        plausible = self._plausible(i, j) & (kind[i] == kind[j])
        i, j = i[plausible], j[plausible]
        alike = self.sets.all_alike(i, j)
        self.pairs: list[tuple[int, int]] = list(zip(i[alike].tolist(), j[alike].tolist(), strict=True))

    def agreement(self, crowd: I64, row: int) -> I64:
        """The positions in `crowd` whose signatures do not rule out similarity with `row`."""
        import numpy as np

        return np.flatnonzero(self._plausible(crowd, np.array([row])))

    def crowded(self, left: set[int], right: set[int]) -> Iterator[tuple[int, int]]:
        """Yield for each number in `left` and each crowd one similar number in `right`, if there is one."""
        for crowd in self.crowds:
            right_rows = crowd[[row in right for row in crowd.tolist()]]
            for row in crowd.tolist() if len(right_rows) else ():
                if row in left:
                    plausible = right_rows[self.agreement(right_rows, row)].tolist()
                    yield from ((row, other) for other in islice((o for o in plausible if self.sets.alike(row, o)), 1))

    def _plausible(self, i: I64, j: I64) -> npt.NDArray[np.bool_]:
        """Whether the signatures of the rows `i` do not rule out similarity with those of the rows `j`."""
        import numpy as np

        agreeing = [
            (self._signed[i[start : start + 8192]] == self._signed[j if len(j) == 1 else j[start : start + 8192]]).sum(
                axis=1
            )
            for start in range(0, len(i), 8192)
        ]
        plausible: npt.NDArray[np.bool_] = np.concatenate([np.zeros(0, np.int64), *agreeing]) >= self._min_agreement
        return plausible


def _candidates(signed: U32, threshold: float) -> tuple[I64, I64, list[I64]]:
    """Pairs i < j of rows that share a bucket, each once and in order, and the buckets of more than FEW rows."""
    import numpy as np

    count = max(1, len(signed))
    codes = np.zeros(0, np.int64)  # i * count + j
    crowds: list[I64] = []
    for rows, bucket in find_buckets(signed, threshold):
        few = np.bincount(bucket)[bucket] <= FEW
        crowds += _split_buckets(rows[~few], bucket[~few])
        i, j = _pairs(rows[few], bucket[few])
        codes = np.sort(np.concatenate([codes, i * count + j]))
        codes = codes[np.diff(codes, prepend=-1) > 0]
    return codes // count, codes % count, crowds


def _numbered(kinds: Sequence[Hashable]) -> I64:
    """A number for each kind, by order of first occurrence."""
    import numpy as np

    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(kind, len(number)) for kind in kinds], np.int64)


def _shingles_of_distinct(texts: Iterable[str], apart: Sequence[Hashable], size: int) -> tuple[I64, I64, I64, U64, I64]:
    """The kind and a text of each number, the number of each text, and the shingles of each number with offsets."""
    import numpy as np

    words, offsets = hash_words(texts)
    kinds = _numbered(apart) if apart else np.zeros(len(offsets) - 1, np.int64)
    keys = digest_texts(words, offsets) + kinds.astype(np.uint64)
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    return kinds[first], first, numbers, *hash_shingles(words, offsets, first, size)


def _split_buckets(rows: I64, bucket: I64) -> list[I64]:
    """The rows of each bucket."""
    import numpy as np

    return np.split(rows, np.flatnonzero(np.diff(bucket)) + 1) if len(rows) else []


def _split_by(kinds: I64, rows: I64) -> list[I64]:
    """The rows of each kind, in their order, without those that are alone."""
    import numpy as np

    return [part for kind in np.unique(kinds) if len(part := rows[kinds == kind]) > 1]


def _divide_chains(order: Sequence[int], leaders: Mapping[int, int], similar: _Alike) -> dict[int, int]:
    """For each number, in `order`, the first earlier leader in its cluster that it is similar to, else itself."""
    import numpy as np

    leaders_by_cluster: dict[int, list[int]] = {}
    divided: dict[int, int] = {}
    for number in order:
        candidates = leaders_by_cluster.setdefault(leaders[number], [])
        plausible = similar.agreement(np.array(candidates, np.int64), number).tolist() if candidates else []
        leader = next((candidates[i] for i in plausible if similar.sets.alike(candidates[i], number)), number)
        divided[number] = leader
        if leader == number:
            candidates.append(number)
    return divided


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


def _join_crowd(crowd: I64, forest: _Forest, similar: _Alike) -> None:
    """Join similar rows of a large bucket; rows already in the same cluster are not compared."""
    import numpy as np

    trees = np.array([forest.root(row) for row in crowd.tolist()])
    for position in range(1, len(crowd)):
        if (trees[:position] == trees[position]).all():
            continue
        candidates = similar.agreement(crowd[:position], int(crowd[position]))
        while len(candidates := candidates[trees[candidates] != trees[position]]):
            if similar.sets.alike(int(crowd[candidates[0]]), int(crowd[position])):
                forest.join(int(crowd[candidates[0]]), int(crowd[position]))
                trees[trees == trees[position]] = trees[candidates[0]]
            candidates = candidates[1:]


class _Forest:
    """Disjoint sets of the numbers below n (Tarjan, 1975), each identified by its smallest member."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, i: int) -> int:
        """The smallest member of the set of `i`."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        """Merge the sets of `i` and `j`."""
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low
