"""How two systems differ on the same rows: what a test of a margin needs beside their metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hone.objectives.base import Outcome


@dataclass(frozen=True)
class PairedRows:
    """Counts of `rows` rows: `won` are right for us alone, `lost` for the other alone, `differing` answered otherwise.

    `has_classes`: a row has a class, which is right or wrong. `is_share`: the main metric is the share of right rows.
    """

    rows: int
    won: int
    lost: int
    differing: int
    has_classes: bool
    is_share: bool


def count_paired_rows(ours: Outcome, theirs: Outcome, our_value: float, their_value: float) -> PairedRows:
    """The counts of two systems' outcomes on the same rows, with their values of the main metric."""
    right, right_there = ours.errors == 0, theirs.errors == 0
    differing = np.array(ours.predictions, object) != np.array(theirs.predictions, object)
    if ours.confidences is None:  # what is shown of an embedding or a text may be the same where its errors are not
        differing = differing | (ours.errors != theirs.errors)
    return PairedRows(
        rows=len(right),
        won=int((right & ~right_there).sum()),
        lost=int((right_there & ~right).sum()),
        differing=int(differing.sum()),
        has_classes=ours.classes is not None and theirs.classes is not None,
        is_share=bool(np.isclose(our_value, right.mean()) and np.isclose(their_value, right_there.mean())),
    )
