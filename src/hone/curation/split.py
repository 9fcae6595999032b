"""Splitting into train, valid and test.

Rows are split by class and seed with near-duplicates kept together, or as they came, and then decontaminated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hone.curation.balance import rank_of_text
from hone.curation.dedup.folding import fold
from hone.curation.dedup.near import clusters, near_pairs
from hone.errors import DataError
from hone.splits import TEST, TRAIN, VALID

_NAMES = {
    TRAIN: ("train", "training", "trn"),
    VALID: ("valid", "validation", "val", "dev", "devel", "development", "eval"),
    TEST: ("test", "testing", "tst", "heldout", "held-out", "held_out"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}


def normalize_splits(names: Sequence[str]) -> list[str]:
    """Map split names as in the data to train, valid and test; all '' if the data names fewer than two splits.

    Rows without a name, where others have one, are for training. Raises DataError for an unknown name, and if the
    data has splits but none for training.
    """
    unknown = sorted({name for name in names if name and name.strip().lower() not in _SPLIT_OF})
    if unknown:
        raise DataError(
            f"unknown splits: {', '.join(unknown[:5])}",
            where="column split",
            fix=f"Use one of {', '.join(_SPLIT_OF)}; or remove the column, and curation.split splits the rows.",
        )
    splits = [_SPLIT_OF.get(name.strip().lower(), "") for name in names]
    named_splits = set(splits) - {""}
    if len(named_splits) < 2:
        return [""] * len(names)
    if TRAIN not in {split or TRAIN for split in splits}:
        raise DataError(
            "the rows have the splits valid and test, but none for training",
            where="column split",
            fix="Add training rows; or remove the column, and curation.split splits the rows.",
        )
    return [split or TRAIN for split in splits]


def find_contaminated_rows(texts: Sequence[str], splits: Sequence[str], threshold: float) -> dict[int, tuple[str, int]]:
    """Rows that also occur, exactly or nearly, in a later split: the reason, and the index of one such row.

    Covers training rows that occur in valid or test, and valid rows that occur in test, so that valid and test
    measure unseen rows.
    """
    contaminated: dict[int, tuple[str, int]] = {}
    for split, later in ((VALID, (TEST,)), (TRAIN, (TEST, VALID))):
        candidates = [i for i, name in enumerate(splits) if name == split]
        later_rows = [i for name in later for i, other in enumerate(splits) if other == name and i not in contaminated]
        for i, j in near_pairs([texts[i] for i in candidates], [texts[j] for j in later_rows], threshold):
            row, other = candidates[i], later_rows[j]
            same = fold(texts[row]) == fold(texts[other])
            contaminated[row] = (f"{'also' if same else 'nearly also'} in {splits[other]}", other)
    return contaminated


def split_rows(
    texts: Sequence[str], labels: Sequence[str], *, valid: float, test: float, seed: int, threshold: float
) -> list[str]:
    """The split of each row: shares `valid` and `test` of each class, the rest for training.

    Rows linked by a similarity of `threshold` or more form a group that stays together. A class with at least three
    groups is in every requested split; one with a single group is only in training. Depends on the seed and the
    texts, not on the order of rows.
    """
    groups = _build_groups(texts, labels, clusters(texts, threshold), seed)
    sizes = Counter(labels)
    by_class: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        by_class[min(group.labels, key=lambda label: (sizes[label], label))].append(group)
    assigned_counts: Counter[tuple[str, str]] = Counter()
    splits = [TRAIN] * len(texts)
    for label in sorted(by_class, key=lambda label: (sizes[label], label)):
        remaining_groups = by_class[label]
        for split, share, reserved_groups in ((TEST, test, 2 if valid else 1), (VALID, valid, 1)):
            rows_needed = max(1, round(share * sizes[label])) - assigned_counts[split, label] if share else 0
            chosen = _choose(remaining_groups, rows_needed, reserved_groups)
            remaining_groups = [group for group in remaining_groups if group not in chosen]
            for row in (row for group in chosen for row in group.rows):
                splits[row] = split
                assigned_counts[split, labels[row]] += 1
    return splits


@dataclass(frozen=True)
class _Group:
    """Rows that stay together, and their labels."""

    rows: tuple[int, ...]
    labels: tuple[str, ...]


def _build_groups(texts: Sequence[str], labels: Sequence[str], leaders: Sequence[int], seed: int) -> list[_Group]:
    """The groups, in a random order that depends only on the seed and their texts."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row, leader in enumerate(leaders):
        members[leader].append(row)
    ranks = [rank_of_text(seed, text) for text in texts]
    ordered = sorted(members.values(), key=lambda rows: min(ranks[row] for row in rows))
    return [_Group(tuple(rows), tuple(sorted({labels[row] for row in rows}))) for rows in ordered]


def _choose(groups: Sequence[_Group], rows_needed: int, reserved_groups: int) -> set[_Group]:
    """Choose groups with at most `rows_needed` rows in total, but at least one group.

    `reserved_groups` groups are not chosen; if there are only two groups, one is not."""
    max_groups = max(len(groups) - reserved_groups, min(len(groups) - 1, 1))
    if rows_needed < 1 or max_groups < 1:
        return set()
    chosen: set[_Group] = set()
    for group in groups:
        if len(group.rows) <= rows_needed and len(chosen) < max_groups:
            chosen.add(group)
            rows_needed -= len(group.rows)
    return chosen or {min(groups, key=lambda group: len(group.rows))}
