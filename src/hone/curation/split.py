"""Splitting into train, valid and test.

Rows are split by class and seed with near-duplicates kept together, or as they came, and then decontaminated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.curation.balance import rank_of_text
from hone.curation.columns import splits_of
from hone.curation.dedup.folding import fold
from hone.curation.dedup.near import join_groups
from hone.curation.dedup.similar_rows import cluster_contexts, cluster_rows, find_repeats
from hone.errors import DataError
from hone.splits import KNOWN_NAMES, TEST, TRAIN, VALID, get_split
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields

LARGEST_GROUP, FEW_ROWS = 0.1, 20  # a group of similar rows above this share of the rows, and this number, is divided


def normalize_splits(names: Sequence[str]) -> list[str]:
    """Map split names as in the data to train, valid and test; all '' if the data names fewer than two splits.

    Rows without a name, where others have one, are for training. Raises DataError for an unknown name, and if the
    data has splits but none for training.
    """
    unknown = sorted({name for name in names if name and not get_split(name)})
    if unknown:
        raise DataError(
            f"unknown splits: {', '.join(unknown[:5])}",
            where="column split",
            fix=f"Use one of {', '.join(KNOWN_NAMES)}; or remove the column, and curation.split splits the rows.",
        )
    splits = [get_split(name) for name in names]
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


def find_contaminated_rows(table: pa.Table, fields: Fields, threshold: float) -> dict[int, tuple[str, int]]:
    """Rows that also occur, exactly or nearly, in a later split: the reason, and the index of one such row.

    Covers training rows that occur in valid or test, and valid rows that occur in test, so that valid and test
    measure unseen rows.
    """
    splits = splits_of(table)
    contaminated: dict[int, tuple[str, int]] = {}
    for split, later in ((VALID, (TEST,)), (TRAIN, (TEST, VALID))):
        candidates = [i for i, name in enumerate(splits) if name == split]
        later_rows = [i for name in later for i, other in enumerate(splits) if other == name]
        repeats = find_repeats(take_rows(table, candidates), take_rows(table, later_rows), fields, threshold)
        pairs = [(candidates[i], later_rows[j]) for i, j in repeats]
        texts = fields.identity_texts(take_rows(table, [row for row, _ in pairs]))
        other_texts = fields.identity_texts(take_rows(table, [other for _, other in pairs]))
        for (row, other), text, other_text in zip(pairs, texts, other_texts, strict=True):
            same = fold(text) == fold(other_text)
            contaminated[row] = (f"{'also' if same else 'nearly also'} in {splits[other]}", other)
    return contaminated


@dataclass(frozen=True)
class Groups:
    """Rows that must be in the same split.

    leaders  for each row the index of the first row of its group
    largest  the number of rows of the largest group
    divided  the number of rows of the largest group that was divided, before that; 0 if none was
    """

    leaders: list[int]
    largest: int
    divided: int = 0


def group_rows(table: pa.Table, fields: Fields, threshold: float) -> Groups:
    """The groups of rows linked by similar pairs and, unless `Fields.split_contexts`, by similar contexts.

    Where such links chain more than LARGEST_GROUP of the rows together, each row of that group is in a group with the
    first row that it is similar to itself.
    """
    leaders = cluster_rows(table, fields, threshold)
    if not fields.split_contexts:
        leaders = join_groups(leaders, cluster_contexts(table, fields, threshold))
    sizes = Counter(leaders)
    limit, largest = max(FEW_ROWS, LARGEST_GROUP * len(leaders)), max(sizes.values(), default=0)
    if largest <= limit:
        return Groups(leaders, largest)
    similar = cluster_rows(table, fields, threshold, chained=False)
    new_leaders = [similar[row] if sizes[leader] > limit else leader for row, leader in enumerate(leaders)]
    divided = {before for before, after in zip(leaders, new_leaders, strict=True) if after != before}
    return Groups(
        new_leaders,
        largest=max(Counter(new_leaders).values()),
        divided=max((sizes[leader] for leader in divided), default=0),
    )


def split_rows(
    texts: Sequence[str], labels: Sequence[str], leaders: Sequence[int], *, valid: float, test: float, seed: int
) -> list[str]:
    """The split of each row: shares `valid` and `test` of each class, the rest for training.

    Rows with the same leader (`group_rows`) stay together. A class with at least three groups is in every requested
    split; one with a single group is only in training. Depends on the seed and the texts, not on the order of rows.
    """
    groups = _build_groups(texts, labels, leaders, seed)
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
