"""Two classifiers that need no fine-tuning, as baselines: a probe of frozen embeddings, and words with a linear SVM.

Both learn from at most ROWS training rows, drawn at random. Labels are class numbers [rows], or 0 and 1 for each of
several labels [rows, labels]; scores are float32 [rows, labels].
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

ROWS = 50_000
# The strength of the probe's regularization is chosen by cross-validation of at most so many rows.
CHOICE_ROWS, FOLDS = 3_000, 3
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse: smaller is stronger
MAX_WORDS = 200_000
SEED = 0


def sample_rows(rows: int) -> np.ndarray:
    """The sorted numbers of the training rows to learn from: all, or ROWS of them."""
    if rows <= ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(SEED).choice(rows, ROWS, replace=False))


def probe_scores(vectors: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int) -> np.ndarray:
    """The probabilities of the classes by logistic regression on standardized embeddings [rows, dimensions].

    Its strength is the one with the lowest cross-validated log loss on training rows. Alain and Bengio, Understanding
    intermediate layers using linear classifier probes, arXiv 1610.01644.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(vectors)
    vectors, queries = scaler.transform(vectors), scaler.transform(queries)
    if labels.ndim == 1:
        return _probe_classes(vectors, labels, queries, classes)
    columns = [_probe_classes(vectors, labels[:, i].astype(np.int64), queries, 2)[:, 1] for i in range(labels.shape[1])]
    return np.stack(columns, axis=1)


def word_scores(texts: Sequence[str], labels: np.ndarray, queries: Sequence[str], classes: int) -> np.ndarray | None:
    """Scores by a linear SVM on TF-IDF of words and pairs of words; None if the texts have no words.

    A class's score is the softmax of the margins, a label's their sigmoid. Joachims, Text Categorization with Support
    Vector Machines, 1998; Wang and Manning, Baselines and Bigrams, 2012.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=MAX_WORDS, dtype=np.float32)
    try:
        words = vectorizer.fit_transform(texts)
    except ValueError:  # no word of two letters or more
        return None
    asked = vectorizer.transform(queries)
    if labels.ndim == 1:
        margins = _margins(words, labels, asked, classes)
        shares = np.exp(margins - margins.max(1, keepdims=True))
        scores: np.ndarray = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        return scores
    columns = [_margins(words, labels[:, i].astype(np.int64), asked, 2)[:, 1] for i in range(labels.shape[1])]
    return np.asarray(1 / (1 + np.exp(-np.stack(columns, axis=1))), np.float32)


def _probe_classes(vectors: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int) -> np.ndarray:
    """The probabilities of all classes; of a class without rows 0."""
    scores = np.zeros((len(queries), classes), np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        scores[:, present[0]] = 1
        return scores
    with _quiet():
        model = _regression(_choose_strength(vectors, labels)).fit(vectors, labels)
        scores[:, model.classes_] = model.predict_proba(queries)
    return scores


def _choose_strength(vectors: np.ndarray, labels: np.ndarray) -> float:
    """The strength with the lowest log loss over FOLDS folds; a class that a fold lacks counts as improbable."""
    from sklearn.model_selection import StratifiedKFold

    chosen = np.random.default_rng(SEED).permutation(len(labels))[:CHOICE_ROWS]
    vectors, labels = vectors[chosen], labels[chosen]
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.max() < FOLDS:
        return 1.0
    losses = np.zeros(len(STRENGTHS))
    for train, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(vectors, labels):
        if len(np.unique(labels[train])) < 2:
            continue
        for place, strength in enumerate(STRENGTHS):
            model = _regression(strength).fit(vectors[train], labels[train])
            column = {label: index for index, label in enumerate(model.classes_.tolist())}
            shares = model.predict_proba(vectors[held_out])
            right = [shares[row, column[label]] if label in column else 0 for row, label in enumerate(labels[held_out])]
            losses[place] -= np.log(np.maximum(right, 1e-6)).sum()
    return STRENGTHS[int(losses.argmin())]


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=200)


def _margins(words: Any, labels: np.ndarray, asked: Any, classes: int) -> np.ndarray:
    """The distances from each class's plane; of a class without rows -infinity."""
    from sklearn.svm import LinearSVC

    margins = np.full((asked.shape[0], classes), -np.inf)
    present = np.unique(labels)
    if len(present) == 1:
        margins[:] = -10.0
        margins[:, present[0]] = 10.0
        return margins
    with _quiet():
        model = LinearSVC(random_state=SEED).fit(words, labels)
    distances = model.decision_function(asked)
    margins[:, model.classes_] = np.stack([-distances, distances], axis=1) if distances.ndim == 1 else distances
    return margins


@contextmanager
def _quiet() -> Iterator[None]:
    """Without scikit-learn's warnings about rare classes and about fits that are near enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
