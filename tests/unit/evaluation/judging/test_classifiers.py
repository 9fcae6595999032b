"""The probe and the words, against scikit-learn's own and where a class, a word or a label is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from hone.evaluation.judging import classifiers


def clouds(rows: int, classes: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around as many centres as there are classes, and their classes."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 8))
    labels = np.arange(rows) % classes
    return centres[labels] + spread * generator.normal(size=(rows, 8)), labels


def test_the_probe_is_scikit_learns_logistic_regression_of_the_best_strength() -> None:
    vectors, labels = clouds(200, 4, 1.0)
    queries, right = clouds(400, 4, 1.0, seed=1)
    found = classifiers.probe_scores(vectors, labels, queries, 4)
    assert found.dtype == np.float32 and found.sum(1) == pytest.approx(np.ones(400), abs=1e-5)
    scaler = StandardScaler().fit(vectors)
    candidates = [
        LogisticRegression(C=strength, max_iter=200).fit(scaler.transform(vectors), labels)
        for strength in classifiers.STRENGTHS
    ]
    theirs = [model.predict_proba(scaler.transform(queries)) for model in candidates]
    chosen = [place for place, scores in enumerate(theirs) if np.allclose(scores, found, atol=1e-5)]
    assert len(chosen) == 1
    losses = [-np.log(scores[np.arange(400), right]).mean() for scores in theirs]
    assert losses[chosen[0]] < min(losses) + 0.05  # of other rows too


def test_words_are_weighed_by_tf_idf_and_parted_by_a_linear_svm() -> None:
    generator = np.random.default_rng(0)
    words = [["card", "lost", "blocked"], ["money", "transfer", "late"], ["rate", "euro", "dollar"]]
    labels = np.arange(90) % 3
    texts = [" ".join(generator.choice([*words[label], "the", "my", "is"], size=6)) for label in labels]
    found = classifiers.word_scores(texts[:60], labels[:60], texts[60:], 3)
    assert found is not None
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit(texts[:60])
    model = LinearSVC(random_state=0).fit(vectorizer.transform(texts[:60]), labels[:60])
    assert (found.argmax(1) == model.predict(vectorizer.transform(texts[60:]))).all()
    assert (found.argmax(1) == labels[60:]).mean() > 0.9


@pytest.mark.parametrize("labels", [np.array([0, 2, 0, 2]), np.array([2, 2, 2, 2])])
def test_a_class_without_rows_is_never_predicted(labels: np.ndarray) -> None:
    vectors, _ = clouds(4, 2, 0.1)
    assert classifiers.probe_scores(vectors, labels, vectors, 4)[:, [1, 3]].max() == 0
    scores = classifiers.word_scores(["one two", "three", "one two", "three"], labels, ["one", "none of them"], 4)
    assert scores is not None and np.isfinite(scores).all()
    assert scores[:, [1, 3]].max() == pytest.approx(0, abs=1e-4)


def test_each_of_several_labels_is_decided_by_itself() -> None:
    vectors, classes = clouds(300, 3, 0.3)
    labels = np.stack([classes == 0, classes > 0, np.ones(300), np.zeros(300)], axis=1).astype(np.int8)
    found = classifiers.probe_scores(vectors, labels, vectors, 4)
    assert ((found >= 0.5) == labels).mean() > 0.99
    texts = [("lost card", "late money", "euro rate")[label] for label in classes]
    found = classifiers.word_scores(texts, labels, texts, 4)
    assert found is not None and ((found >= 0.5) == labels).all()


def test_texts_without_words_have_no_words_to_learn_from() -> None:
    assert classifiers.word_scores(["!", "?"], np.array([0, 1]), ["."], 2) is None


def test_of_many_rows_a_sample_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert classifiers.sample_rows(7).tolist() == list(range(7))
    monkeypatch.setattr(classifiers, "ROWS", 5)
    found = classifiers.sample_rows(100)
    assert len(set(found.tolist())) == 5 and (np.diff(found) > 0).all()
    assert found.tolist() == classifiers.sample_rows(100).tolist()
