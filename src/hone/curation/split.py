"""Train, valid and test.

Parted by class and seed with near-duplicates on one side, or as the rows came, and then decontaminated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hone.curation.balance import rank
from hone.curation.dedup.folding import fold
from hone.curation.dedup.near import clusters, near_pairs
from hone.errors import DataError

TRAIN, VALID, TEST = "train", "valid", "test"
SPLITS = (TRAIN, VALID, TEST)
_NAMES = {
    TRAIN: ("train", "training", "trn"),
    VALID: ("valid", "validation", "val", "dev", "devel", "development", "eval"),
    TEST: ("test", "testing", "tst", "heldout", "held-out", "held_out"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}


def known_splits(names: Sequence[str]) -> list[str]:
    """The split that each of `names` stands for, '' for all where the data knows fewer than two.

    A row that names none, where others do, is for training. Raises DataError for a name that is no split's, and
    where rows came with splits and none of them is for training.
    """
    unknown = sorted({name for name in names if name and name.strip().lower() not in _SPLIT_OF})
    if unknown:
        raise DataError(
            f"no split is called {', '.join(unknown[:5])}",
            where="column split",
            fix=f"Known names are {', '.join(_SPLIT_OF)}. Rows without a split are parted by curation.split.",
        )
    splits = [_SPLIT_OF.get(name.strip().lower(), "") for name in names]
    there = set(splits) - {""}
    if len(there) < 2:
        return [""] * len(names)
    if TRAIN not in {split or TRAIN for split in splits}:
        raise DataError(
            "the rows came with the splits valid and test and with none for training",
            where="column split",
            fix="Add training rows. Without a split of their own rows are parted by curation.split.",
        )
    return [split or TRAIN for split in splits]


def contaminated(texts: Sequence[str], splits: Sequence[str], threshold: float) -> dict[int, tuple[str, int]]:
    """Rows that also stand, exactly or nearly, in a split further on: the reason, and one row there.

    Training rows that stand in valid or test, and valid rows that stand in test, so that what is measured
    on valid and test is about rows never seen.
    """
    found: dict[int, tuple[str, int]] = {}
    for split, later in ((VALID, (TEST,)), (TRAIN, (TEST, VALID))):
        mine = [i for i, name in enumerate(splits) if name == split]
        theirs = [i for name in later for i, other in enumerate(splits) if other == name and i not in found]
        for i, j in near_pairs([texts[i] for i in mine], [texts[j] for j in theirs], threshold):
            row, other = mine[i], theirs[j]
            same = fold(texts[row]) == fold(texts[other])
            found[row] = (f"{'also' if same else 'nearly also'} in {splits[other]}", other)
    return found


def divide(
    texts: Sequence[str], labels: Sequence[str], *, valid: float, test: float, seed: int, threshold: float
) -> list[str]:
    """The split of each row: shares `valid` and `test` of each class, the rest for training.

    Rows linked by a similarity of `threshold` or more go together. A class of three such groups or more stands in
    every split that is wanted; one with a single group is for training. Depends on the seed and the texts, not on
    the order of rows.
    """
    groups = _groups(texts, labels, clusters(texts, threshold), seed)
    sizes = Counter(labels)
    by_class: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        by_class[min(group.labels, key=lambda label: (sizes[label], label))].append(group)
    given: Counter[tuple[str, str]] = Counter()
    splits = [TRAIN] * len(texts)
    for label in sorted(by_class, key=lambda label: (sizes[label], label)):
        left = by_class[label]
        for split, share, spare in ((TEST, test, 2 if valid else 1), (VALID, valid, 1)):
            wanted = max(1, round(share * sizes[label])) - given[split, label] if share else 0
            chosen = _choose(left, wanted, spare)
            left = [group for group in left if group not in chosen]
            for row in (row for group in chosen for row in group.rows):
                splits[row] = split
                given[split, labels[row]] += 1
    return splits


@dataclass(frozen=True)
class _Group:
    """Rows that go together, and their labels."""

    rows: tuple[int, ...]
    labels: tuple[str, ...]


def _groups(texts: Sequence[str], labels: Sequence[str], leaders: Sequence[int], seed: int) -> list[_Group]:
    """The groups, in a random order that the seed and their texts decide."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row, leader in enumerate(leaders):
        members[leader].append(row)
    ranks = [rank(seed, text) for text in texts]
    ordered = sorted(members.values(), key=lambda rows: min(ranks[row] for row in rows))
    return [_Group(tuple(rows), tuple(sorted({labels[row] for row in rows}))) for rows in ordered]


def _choose(groups: Sequence[_Group], wanted: int, spare: int) -> set[_Group]:
    """Groups of together `wanted` rows at most, but one at least; `spare` are left, one where there are only two."""
    most = max(len(groups) - spare, min(len(groups) - 1, 1))
    if wanted < 1 or most < 1:
        return set()
    chosen: set[_Group] = set()
    for group in groups:
        if len(group.rows) <= wanted and len(chosen) < most:
            chosen.add(group)
            wanted -= len(group.rows)
    return chosen or {min(groups, key=lambda group: len(group.rows))}
