"""Shots, the training rows that a prompt has as examples: drawn at random, or those nearest to the question.

The nearest example is the last, next to the question. Answers near the end of a prompt influence a model most (recency
bias: Zhao et al., Calibrate Before Use, 2021), and the order alone can decide between chance and the state of the art
(Lu et al., Fantastically Ordered Prompts, 2022). Liu et al. (What Makes Good In-Context Examples for GPT-3?, 2022)
found either direction better by a little, depending on the data set: so it is fixed by the reason above.

A training row with the same text as a question is legal training data, which the fine-tuned model has seen too: it may
be an example, and is then the nearest.
"""

from __future__ import annotations

import random
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.evaluation.judging.baselines import BLOCK, find_nearest
from hone.evaluation.judging.predict import best_device, embed_batch, load_base
from hone.models.positions import get_max_tokens
from hone.objectives.shared.bm25 import weigh_words
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.reading import LIMITS
from hone.objectives.shared.tokenizer import encode_texts, load_tokenizer
from hone.writing_systems import CHARACTER_WORD

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# A search: the rows of `texts` that are nearest to each of `queries`, int64 [queries, min(count, texts)], nearest last.
Search = Callable[[Sequence[str], Sequence[str], int], np.ndarray]

# Queries and texts whose scores are held at once: 33 MB, and as much again four times while the best are selected.
_QUERIES, _TEXTS = 256, 16_384
# Decimals of a score that count: two orders of adding up the same weights differ by less.
_DECIMALS = 9
_WORD = re.compile(rf"{CHARACTER_WORD}|[^\W{CHARACTER_WORD[1:-1]}]+")


def choose_random(train_count: int, shots: int, seed: int, strata: Sequence[str] = ()) -> list[int]:
    """The row numbers of the same examples for all questions: `shots` rows, or all if there are fewer.

    With `strata`, the class of each training row, the classes take turns in random order, so that their numbers of
    examples differ by at most one while they have rows. The same arguments give the same rows in the same order.
    """
    draw = random.Random(seed)
    rows_by_class: dict[str, list[int]] = {}
    for row, name in zip(range(train_count), strata or [""] * train_count, strict=True):
        rows_by_class.setdefault(name, []).append(row)
    drawn = [draw.sample(rows, min(shots, len(rows))) for _, rows in sorted(rows_by_class.items())]
    draw.shuffle(drawn)
    turns = (row for turn in zip_longest(*drawn) for row in turn if row is not None)
    return [row for row, _ in zip(turns, range(shots), strict=False)]


def choose_bm25(texts: Sequence[str], queries: Sequence[str], count: int) -> np.ndarray:
    """The `count` texts nearest to each query by the words that they share: a `Search`.

    Okapi BM25 (`objectives.shared.bm25`). Case is ignored; a character of a script
    without spaces is a word. Of equal scores the lower row number is nearer, also among texts that share no word.
    """
    count = min(count, len(texts))
    best, rows = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    if count:
        weights, vocabulary = _weigh_words(texts)
        query_counts = _count_words(queries, vocabulary, is_growing=False)
        blocks = (_score_block(query_counts, weights, start) for start in range(0, len(texts), _TEXTS))
        best, rows = _select_best(blocks, len(queries), count)
    order = np.argsort(-best, axis=1, kind="stable")[:, ::-1]
    return np.take_along_axis(rows, order, 1)


def choose_nearest(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], query_vectors: np.ndarray, count: int
) -> np.ndarray:
    """The row numbers of the `count` vectors nearest to each query by cosine: int64 [queries, count], nearest last.

    `blocks`: unit vectors [rows, dimensions] with their row numbers, `count` rows or more in all. `query_vectors`: unit
    vectors [queries, dimensions]. The similarities of all queries to one block are held at once.
    """
    return find_nearest(query_vectors, blocks, count)[1][:, ::-1]


@dataclass(frozen=True)
class Embedder:
    """A base model that embeds texts; `choose` is a `Search` by the cosine of embeddings.

    A text longer than `max_length` tokens is embedded by its first ones.
    """

    model: Any
    tokenizer: Any
    max_length: int

    def choose(self, texts: Sequence[str], queries: Sequence[str], count: int) -> np.ndarray:
        """The `count` texts nearest to each query. Texts are embedded in blocks and not kept."""
        count = min(count, len(texts))
        if not count or not queries:
            return np.empty((len(queries), count), np.int64)
        query_vectors = np.concatenate([vectors for vectors, _ in self.embed_texts(queries)])
        return choose_nearest(self.embed_texts(texts), query_vectors, count)

    def embed_texts(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of unit vectors, float32 [rows, dimensions], and their row numbers, in the order of `texts`.

        The mean of the last hidden state over a text's tokens (Reimers and Gurevych, Sentence-BERT, 2019).
        """
        for start in range(0, len(texts), BLOCK):
            encoded, _ = encode_texts(self.tokenizer, texts[start : start + BLOCK], self.max_length)
            vectors = self._embed_rows(encoded.to_pylist())
            yield vectors, np.arange(start, start + len(vectors))

    def _embed_rows(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors of rows of token ids, which are batched with others of similar length."""
        device = self.model.device
        max_rows, max_tokens = LIMITS[device.type]
        # A tokenizer without special tokens gives no token for an empty text.
        ids = [row or [self.tokenizer.pad_token_id] for row in rows]
        order = np.argsort([-len(row) for row in ids], kind="stable")
        batches: list[np.ndarray] = []
        done = 0
        while done < len(ids):
            size = max(1, min(max_rows, max_tokens // len(ids[order[done]])))
            members = [ids[row] for row in order[done : done + size]]
            batch = {"input_ids": pad_rows(members, self.tokenizer.pad_token_id)}
            batch["attention_mask"] = attention_mask(members)
            batches.append(embed_batch(self.model, {name: tensor.to(device) for name, tensor in batch.items()}))
            done += len(members)
        vectors = np.concatenate(batches)
        return vectors[np.argsort(order)]


def load_embedder(base: Path, max_length: int) -> Embedder:
    """The base model in a local directory as an embedder, float32 on the best device.

    `max_length` is reduced to the model's own maximum. Raises ModelError if the model or its tokenizer cannot be
    loaded.
    """
    model = load_base(base, best_device())
    return Embedder(model, load_tokenizer(base), min(max_length, get_max_tokens(model.config)))


def _weigh_words(texts: Sequence[str]) -> tuple[csr_array, dict[str, int]]:
    """BM25's weight of each word in each text, [texts, words], and the number of each word."""
    vocabulary: dict[str, int] = {}
    counts = _count_words(texts, vocabulary, is_growing=True)
    row_numbers = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
    counts.data = weigh_words(counts.data, row_numbers, counts.indices, len(texts))
    return counts, vocabulary


def _count_words(texts: Sequence[str], vocabulary: dict[str, int], *, is_growing: bool) -> csr_array:
    """How often each text has each word: float64 [texts, words]. New words join the vocabulary, or are left out."""
    from scipy.sparse import csr_array

    columns, values, ends = array("i"), array("d"), array("q", [0])
    for text in texts:
        for word, frequency in Counter(_WORD.findall(text.lower())).items():
            column = vocabulary.setdefault(word, len(vocabulary)) if is_growing else vocabulary.get(word, -1)
            if column >= 0:
                columns.append(column)
                values.append(frequency)
        ends.append(len(columns))
    arrays = (np.array(values), np.array(columns, np.int64), np.array(ends, np.int64))
    return csr_array(arrays, shape=(len(texts), len(vocabulary)))


def _score_block(queries: csr_array, weights: csr_array, start: int) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Scores [queries, texts] of one block of texts, for one block of queries at a time, and the texts' row numbers."""
    transposed = weights[start : start + _TEXTS].T.tocsr()
    rows = np.arange(start, start + transposed.shape[1])
    parts = range(0, queries.shape[0], _QUERIES)
    return ((queries[part : part + _QUERIES] @ transposed).toarray() for part in parts), rows


def _select_best(
    blocks: Iterable[tuple[Iterator[np.ndarray], np.ndarray]], queries: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` highest scores of each query and their row numbers, which ascend: [queries, count] each."""
    best, best_rows = np.full((queries, count), -np.inf), np.zeros((queries, count), np.int64)
    for parts, rows in blocks:
        done = 0
        for part in parts:
            block = slice(done, done + len(part))
            scores = np.concatenate([best[block], part.round(_DECIMALS)], axis=1)
            candidates = np.concatenate([best_rows[block], np.broadcast_to(rows, part.shape)], axis=1)
            columns = _list_highest(scores, count)
            best[block] = np.take_along_axis(scores, columns, 1)
            best_rows[block] = np.take_along_axis(candidates, columns, 1)
            done += len(part)
    return best, best_rows


def _list_highest(scores: np.ndarray, count: int) -> np.ndarray:
    """The columns of the `count` highest scores of each row, ascending; of equal scores the first columns."""
    threshold = np.partition(scores, -count, axis=1)[:, [-count]]
    is_above, is_equal = scores > threshold, scores == threshold
    missing = count - is_above.sum(1, keepdims=True)
    is_chosen = is_above | (is_equal & (is_equal.cumsum(1, dtype=np.int32) <= missing))
    return np.nonzero(is_chosen)[1].reshape(len(scores), count)
