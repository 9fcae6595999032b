"""What the labels of all rows show together: names that differ by spaces or case alone, and labels joined into one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hone.errors import DataError
from hone.objectives.base import Objective, RowReader, Targets
from hone.splits import TEST, VALID

if TYPE_CHECKING:
    import pyarrow as pa

_SEPARATORS = (",", ";", "|")  # a slash is part of many names, such as Sci/Tech
_MIN_JOINED = 3  # fewer labels that are made of others may be by chance
_SHOWN = 5  # pairs of names that are reported one by one


class LabelReader(RowReader):
    """Counts the labels of rows by name, and those that had spaces around them.

    `list_labels` returns the labels in a row, of the source or converted; of the former what it cannot tell is missing.
    """

    def __init__(
        self,
        normalize_row: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        list_labels: Callable[[Mapping[str, Any]], Iterable[Any]],
    ) -> None:
        super().__init__(normalize_row)
        self._list_labels = list_labels
        self.labels: Counter[str] = Counter()

    def convert(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `Objective.normalize_row`."""
        row = super().convert(values)
        self.labels.update(self._list_labels(row))
        if any(isinstance(label, str) and label != label.strip() for label in self._list_labels(values)):
            self.notes["labels without the spaces around them"] += 1
        return row

    def finish(self) -> Mapping[str, int]:
        """The notes, with the labels that differ by case alone."""
        return {**self.notes, **describe_case_variants(self.labels)}


def count_unseen_labels(
    objective: Objective, read_split: Callable[[str], pa.Table], targets: Targets
) -> dict[str, Counter[str]]:
    """The numbers of validation and test rows with labels that no training row has, by split and by these labels.

    A split without such rows is left out. `read_split` returns the rows of a split.
    """
    counts = {split: Counter(objective.list_unseen_labels(read_split(split), targets)) for split in (VALID, TEST)}
    return {split: rows_by_label for split, rows_by_label in counts.items() if rows_by_label}


def name_labels(counts: Counter[str], limit: int) -> str:
    """The most frequent labels for people, `limit` at most, each with its number of rows."""
    return ", ".join(f"{label} ({count})" for label, count in counts.most_common(limit))


def describe_case_variants(labels: Mapping[str, int]) -> dict[str, int]:
    """A note for each pair of labels that differ by case alone, with the occurrences of the rarer one; five at most."""
    names_by_folded = defaultdict(list)
    for name in sorted(labels, key=lambda name: (-labels[name], name)):
        names_by_folded[name.casefold()].append(name)
    pairs = [(names[0], name) for names in names_by_folded.values() for name in names[1:]]
    notes = {f"label {rarer!r}, which differs from {name!r} by case alone": labels[rarer] for name, rarer in pairs}
    return dict(sorted(notes.items(), key=lambda note: -note[1])[:_SHOWN])


def check_not_joined(labels: Sequence[str]) -> None:
    """Raises DataError if labels are combinations of others, such as 2,5,9: several labels in one text."""
    for separator in _SEPARATORS:
        parts_by_label = {label: [part.strip() for part in label.split(separator)] for label in labels}
        occurrences = Counter(part for parts in parts_by_label.values() for part in set(parts))
        compounds = [label for label, parts in parts_by_label.items() if len(parts) > 1 and all(parts)]
        joined = [label for label in compounds if all(occurrences[part] > 1 for part in parts_by_label[label])]
        if len(joined) >= max(_MIN_JOINED, len(compounds) / 2) and len(occurrences) < len(labels):
            example = max(joined, key=lambda label: (len(parts_by_label[label]), label))
            raise DataError(
                f"{len(joined)} of {len(labels)} labels, such as {example!r}, are combinations of the same "
                f"{len(occurrences)} labels, separated by {separator!r}",
                where="column label",
                fix="These are several labels of a text: set objective: {kind: multi-label-classification, separator: "
                f"{separator!r}}} and ingest.columns: {{labels: NAME}}. If each combination is a class of its own, set "
                "objective.combined_labels: true.",
            )
