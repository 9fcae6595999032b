"""The baselines of any objective: nearest neighbours by the base model's embeddings, and the base model itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.evaluation.judging import predict
from hone.evaluation.judging.predict import Advance, load_base
from hone.objectives.base import Predictions, Targets
from hone.objectives.shared.reading import Reader

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

# Training rows whose embeddings are held at once: with 384 dimensions 6 MB, and 50 MB of similarities to 3,000 rows.
BLOCK = 4096


def neighbours(
    base: Path, train: pa.Table, test: pa.Table, k: int, reader: Reader, advance: Advance, targets: Targets
) -> Predictions:
    """What the k nearest of all training rows say of each test row, in the frozen base model's space.

    A row's embedding is the mean of the last hidden state over its tokens, as in Reimers and Gurevych, Sentence-BERT,
    2019; nearness is the cosine. Training rows are embedded and compared block by block.
    """
    model = load_base(base, reader.device)
    queries = np.empty((0, 0), np.float32)
    for positions, embedded in _embeddings(model, test, reader, advance, "embedding test rows"):
        queries = queries if queries.size else np.empty((len(test), embedded.shape[1]), np.float32)
        queries[positions] = embedded
    memory = (
        (e, positions) for positions, e in _blocks(_embeddings(model, train, reader, advance, "embedding train rows"))
    )
    similarities, rows = find_nearest(queries, memory, min(k, len(train)))
    return reader.objective.neighbour_predictions(neighbour_weights(similarities), rows, train, targets)


def untuned(base: Path, test: pa.Table, reader: Reader, advance: Advance, targets: Targets) -> Predictions:
    """What the base model says of each test row, as it is; what is new in its head is random, the same each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = reader.objective.load_model(base, targets).eval().to(reader.device)
    return predict.read(model, test, reader, advance, "testing the base model")[0]


def beside(tokens: pa.Table, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The encoded rows with further columns."""
    import pyarrow as pa

    for name, values in columns.items():
        tokens = tokens.append_column(name, pa.array(values))
    return tokens


def find_nearest(
    queries: np.ndarray, memory: Iterable[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities and rows, [queries, k] nearest first, of unit vectors in `memory`: blocks with their rows.

    `memory` must have k rows or more.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    nearest_rows = np.zeros((len(queries), k), np.int64)
    for block, rows in memory:
        near = np.concatenate([best, queries @ block.T], axis=1)
        candidates = np.concatenate([nearest_rows, np.broadcast_to(rows, (len(queries), len(rows)))], axis=1)
        top = np.argpartition(-near, k - 1, axis=1)[:, :k]
        best, nearest_rows = np.take_along_axis(near, top, 1), np.take_along_axis(candidates, top, 1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(best, order, 1), np.take_along_axis(nearest_rows, order, 1)


def neighbour_weights(similarities: np.ndarray) -> np.ndarray:
    """A neighbour's weight, the inverse of its cosine distance: float64, of the same shape.

    As scikit-learn's KNeighborsClassifier(weights="distance", metric="cosine"). A text that is there already decides.
    """
    # float32 cosines are known to about 1e-6: nearer neighbours than that are alike.
    inverse_distances: np.ndarray = 1 / np.maximum(1 - similarities.astype(np.float64), 1e-6)
    return inverse_distances


def _embeddings(
    model: Any, tokens: pa.Table, reader: Reader, advance: Advance, note: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of positions and unit-length mean-pooled embeddings, float32 [rows, dimensions]."""
    for positions, batch in reader.batches(tokens):
        vectors = predict.embed_batch(model, batch)
        advance(len(positions), note)
        yield positions, vectors


def _blocks(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same rows in blocks of about BLOCK."""
    batches_held: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in batches:
        batches_held.append(batch)
        if sum(len(at) for at, _ in batches_held) >= BLOCK:
            yield np.concatenate([at for at, _ in batches_held]), np.concatenate([e for _, e in batches_held])
            batches_held = []
    if batches_held:
        yield np.concatenate([at for at, _ in batches_held]), np.concatenate([e for _, e in batches_held])
