"""The baselines are what their names say, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier

from hone.evaluation.baselines import majority, nearest, vote


def vectors(rows: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_most_frequent_class_is_always_answered() -> None:
    labels = np.array([2, 0, 2, 1, 2, 1])
    scores = majority(labels, 4, rows=5)
    reference = DummyClassifier(strategy="prior").fit(np.zeros((6, 1)), labels).predict_proba(np.zeros((5, 1)))
    assert scores.argmax(1).tolist() == [2] * 5
    assert scores[:, :3] == pytest.approx(reference)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_neighbours_vote_as_scikit_learns_do(k: int) -> None:
    memory, queries = vectors(300, seed=0), vectors(80, seed=1)
    labels = np.random.default_rng(2).integers(6, size=300)
    blocks = [(memory[start : start + 70], labels[start : start + 70]) for start in range(0, 300, 70)]
    reference = KNeighborsClassifier(k, weights="distance", metric="cosine", algorithm="brute").fit(memory, labels)
    scores = vote(*nearest(queries, blocks, k), 6)
    assert scores == pytest.approx(reference.predict_proba(queries), abs=1e-5)


def test_neighbours_come_nearest_first_whatever_the_blocks() -> None:
    memory, queries, labels = vectors(90, seed=3), vectors(10, seed=4), np.arange(90)
    whole, order = nearest(queries, [(memory, labels)], 7)
    parted, same = nearest(queries, [(memory[:4], labels[:4]), (memory[4:], labels[4:])], 7)
    assert np.array_equal(order, same)
    assert whole == pytest.approx(parted, abs=1e-6)
    assert (np.diff(whole, axis=1) <= 0).all()


def test_a_text_that_stands_in_the_memory_decides_alone() -> None:
    memory = vectors(50, seed=5)
    labels = np.array([1] + [0] * 49)
    assert vote(*nearest(memory[:1], [(memory, labels)], 10), 2)[0, 1] > 0.999


def test_of_fewer_rows_than_neighbours_all_vote() -> None:
    memory, queries, labels = vectors(4, seed=6), vectors(9, seed=7), np.array([2, 1, 2, 0])
    asked_for_more = vote(*nearest(queries, [(memory, labels)], 10), 3)
    assert asked_for_more == pytest.approx(vote(*nearest(queries, [(memory, labels)], 4), 3))
