"""Baselines for any objective: by the base model's embeddings, by words, and the base model itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.evaluation.judging import classifiers, predict
from hone.evaluation.judging.predict import Advance, load_base
from hone.objectives.base import Objective, Predictions, Targets
from hone.objectives.shared.reading import Reader

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

# Training rows whose embeddings are held at once: with 384 dimensions 6 MB, and 50 MB of similarities to 3,000 rows.
BLOCK = 4096


def embedding_predictions(
    base: Path, train: pa.Table, test: pa.Table, k: int, reader: Reader, advance: Advance, targets: Targets
) -> dict[str, Predictions]:
    """Predictions for the test rows in the frozen base model's embedding space, where each row is embedded once.

    `neighbours`: from the k nearest training rows. `probe`, if rows have classes: by logistic regression.

    A row's embedding is the mean of the last hidden state over its tokens (Reimers and Gurevych, Sentence-BERT, 2019);
    the similarity is the cosine. Training rows are embedded and compared in blocks, never all at once; the probe learns
    from a sample of them.
    """
    model, objective = load_base(base, reader.device), reader.objective
    queries = np.empty((0, 0), np.float32)
    for positions, embedded in _embed_rows(model, test, reader, advance, "embedding test rows"):
        queries = queries if queries.size else np.empty((len(test), embedded.shape[1]), np.float32)
        queries[positions] = embedded
    labels = objective.class_labels(train, targets)
    sampled = np.empty(0, np.int64) if labels is None else classifiers.sample_rows(len(train))
    sampled_vectors = np.empty((len(sampled), queries.shape[1]), np.float32)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        train_batches = _embed_rows(model, train, reader, advance, "embedding train rows")
        for positions, vectors in _merge_batches(train_batches):
            places = np.searchsorted(sampled, positions)
            is_sampled = (places < len(sampled)) & np.isin(positions, sampled)
            sampled_vectors[places[is_sampled]] = vectors[is_sampled]
            yield vectors, positions

    similarities, rows = find_nearest(queries, blocks(), min(k, len(train)))
    predictions = {"neighbours": objective.neighbour_predictions(neighbour_weights(similarities), rows, train, targets)}
    if labels is not None:
        scores = classifiers.probe_scores(sampled_vectors, labels[sampled], queries, len(targets["labels"]))
        predictions["probe"] = {"scores": scores}
    return predictions


def word_predictions(
    objective: Objective, train: pa.Table, texts: Sequence[str], test: Sequence[str], targets: Targets
) -> dict[str, Predictions]:
    """`tf-idf`: predictions for the texts `test` from the words of the training `texts`; empty without classes."""
    labels = objective.class_labels(train, targets)
    if labels is None:
        return {}
    sampled = classifiers.sample_rows(len(texts))
    scores = classifiers.word_scores([texts[row] for row in sampled], labels[sampled], test, len(targets["labels"]))
    return {} if scores is None else {"tf-idf": {"scores": scores}}


def untuned(base: Path, test: pa.Table, reader: Reader, advance: Advance, targets: Targets) -> Predictions:
    """The untuned base model's predictions for the test rows; new weights of its head are random, from a fixed seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = reader.objective.load_model(base, targets).eval().to(reader.device)
    return predict.read(model, test, reader, advance, "testing the base model")[0]


def beside(tokens: pa.Table, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The encoded rows with the further `columns`, by name."""
    import pyarrow as pa

    for name, values in columns.items():
        tokens = tokens.append_column(name, pa.array(values))
    return tokens


def find_nearest(
    queries: np.ndarray, memory: Iterable[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities and row numbers of the nearest vectors, each [queries, k], nearest first.

    `memory` yields blocks of unit vectors [rows, dimensions] with their row numbers, k rows or more in all.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    nearest_rows = np.zeros((len(queries), k), np.int64)
    for block, rows in memory:
        similarities = np.concatenate([best, queries @ block.T], axis=1)
        candidates = np.concatenate([nearest_rows, np.broadcast_to(rows, (len(queries), len(rows)))], axis=1)
        top = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        best, nearest_rows = np.take_along_axis(similarities, top, 1), np.take_along_axis(candidates, top, 1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(best, order, 1), np.take_along_axis(nearest_rows, order, 1)


def neighbour_weights(similarities: np.ndarray) -> np.ndarray:
    """Each neighbour's weight, the inverse of its cosine distance: float64, of the same shape.

    As in scikit-learn's KNeighborsClassifier(weights="distance", metric="cosine"): an identical text outweighs others.
    """
    # float32 cosines are exact to about 1e-6: smaller distances count as equal.
    inverse_distances: np.ndarray = 1 / np.maximum(1 - similarities.astype(np.float64), 1e-6)
    return inverse_distances


def _embed_rows(
    model: Any, tokens: pa.Table, reader: Reader, advance: Advance, note: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of row positions and unit-length mean-pooled embeddings, float32 [rows, dimensions]."""
    for positions, batch in reader.batches(tokens):
        vectors = predict.embed_batch(model, batch)
        advance(len(positions), note)
        yield positions, vectors


def _merge_batches(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same rows in blocks of BLOCK rows or slightly more."""
    block: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in batches:
        block.append(batch)
        if sum(len(positions) for positions, _ in block) >= BLOCK:
            yield np.concatenate([positions for positions, _ in block]), np.concatenate([e for _, e in block])
            block = []
    if block:
        yield np.concatenate([positions for positions, _ in block]), np.concatenate([e for _, e in block])
