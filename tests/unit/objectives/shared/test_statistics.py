"""Metrics of each group from counts."""

from __future__ import annotations

import numpy as np
import pytest

from hone.objectives.base import UNSEEN
from hone.objectives.shared.statistics import metrics_by_group


@pytest.mark.parametrize(("unseen", "names"), [(0, ["a", "b"]), (3, ["a", "b", UNSEEN])])
def test_names_that_no_training_row_has_are_a_group_where_there_are_any(unseen: int, names: list[str]) -> None:
    right, support, predicted = (np.array([counts]).T for counts in ([1, 0, 0], [2, 0, unseen], [4, 0, 0]))
    groups = metrics_by_group(["a", "b"], right, support, predicted)
    assert list(groups) == names
    assert {name: values[0] for name, values in groups["a"].items()} == {
        "precision": 0.25,
        "recall": 0.5,
        "f1": pytest.approx(1 / 3),
        "support": 2,
    }
    assert np.isnan(groups["b"]["f1"][0])
