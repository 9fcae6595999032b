"""The baselines are what their names say, against scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier

from hone.evaluation.judging.baselines import find_nearest, neighbour_weights
from tests.unit.evaluation.judging.classified import OBJECTIVE, targets


def vectors(rows: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def votes(
    queries: np.ndarray, memory: Iterable[tuple[np.ndarray, np.ndarray]], k: int, labels: np.ndarray
) -> np.ndarray:
    """Scores [queries, labels] of the k nearest rows of `memory`, which have `labels`."""
    similarities, at = find_nearest(queries, memory, k)
    said = OBJECTIVE.neighbour_predictions(
        neighbour_weights(similarities), at, pa.table({"label": labels}), targets(labels.max() + 1)
    )
    return np.asarray(said["scores"])


def test_the_most_frequent_class_is_always_answered() -> None:
    labels = np.array([2, 0, 2, 1, 2, 1])
    train, test = pa.table({"label": labels}), pa.table({"label": [0] * 5})
    scores = np.asarray(OBJECTIVE.baseline_predictions(train, test, targets(4), test)["majority"]["scores"])
    reference = DummyClassifier(strategy="prior").fit(np.zeros((6, 1)), labels).predict_proba(np.zeros((5, 1)))
    assert scores.argmax(1).tolist() == [2] * 5
    assert scores[:, :3] == pytest.approx(reference)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_neighbours_vote_as_scikit_learns_do(k: int) -> None:
    memory, queries = vectors(300, seed=0), vectors(80, seed=1)
    labels = np.random.default_rng(2).integers(6, size=300)
    at = np.arange(300)
    blocks = [(memory[start : start + 70], at[start : start + 70]) for start in range(0, 300, 70)]
    reference = KNeighborsClassifier(k, weights="distance", metric="cosine", algorithm="brute").fit(memory, labels)
    scores = votes(queries, blocks, k, labels)
    assert scores == pytest.approx(reference.predict_proba(queries), abs=1e-5)


def test_neighbours_come_nearest_first_whatever_the_blocks() -> None:
    memory, queries, labels = vectors(90, seed=3), vectors(10, seed=4), np.arange(90)
    whole, order = find_nearest(queries, [(memory, labels)], 7)
    parted, same = find_nearest(queries, [(memory[:4], labels[:4]), (memory[4:], labels[4:])], 7)
    assert np.array_equal(order, same)
    assert whole == pytest.approx(parted, abs=1e-6)
    assert (np.diff(whole, axis=1) <= 0).all()


def test_a_text_that_stands_in_the_memory_decides_alone() -> None:
    memory = vectors(50, seed=5)
    labels = np.array([1] + [0] * 49)
    assert votes(memory[:1], [(memory, np.arange(50))], 10, labels)[0, 1] > 0.999
