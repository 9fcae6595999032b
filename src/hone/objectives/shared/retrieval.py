"""Retrieval: the rank of the right text among all candidates, by embeddings and by words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from hone.objectives.shared.bm25 import weigh_words
from hone.objectives.shared.statistics import safe_ratio

if TYPE_CHECKING:
    import numpy as np

BLOCK = 512  # anchors that are compared with all candidates at once: 20 MB for 10,000 candidates
_WORD = re.compile(r"\w+")


def distinct_indices(texts: Sequence[Hashable]) -> np.ndarray:
    """The index of each text among the distinct texts, which are numbered as they first occur (int64)."""
    import numpy as np

    index_by_text: dict[Hashable, int] = {}
    return np.array([index_by_text.setdefault(text, len(index_by_text)) for text in texts], np.int64)


def compute_ranks(embedded: np.ndarray, candidate_index: np.ndarray, anchor_index: np.ndarray) -> np.ndarray:
    """The rank, from 1, of each row's positive among the distinct positives by cosine: float64 [rows].

    The other positives of the same anchor are right too, and left out. `embedded` [rows, 2, width]: unit vectors of
    anchors and positives. `candidate_index` and `anchor_index` [rows]: `distinct_indices` of positives and anchors.
    """
    import numpy as np

    _, first_rows = np.unique(candidate_index, return_index=True)
    candidates = embedded[first_rows, 1].astype(np.float64)
    others = _list_other_answers(candidate_index, anchor_index)
    ranks = np.empty(len(embedded))
    for start in range(0, len(embedded), BLOCK):
        block = slice(start, start + BLOCK)
        cosines = embedded[block, 0].astype(np.float64) @ candidates.T
        ranks[block] = _rank_candidates(cosines, candidate_index[block], others[block])
    return ranks


def bm25_ranks(
    queries: Sequence[str], texts: Sequence[str], candidate_index: np.ndarray, anchor_index: np.ndarray
) -> np.ndarray:
    """Ranks like `compute_ranks`, by Okapi BM25 (`bm25.weigh_words`); case ignored."""
    import numpy as np

    _, first_rows = np.unique(candidate_index, return_index=True)
    numbers: dict[str, int] = {}
    pairs = [
        (candidate, numbers.setdefault(word, len(numbers)), frequency)
        for candidate, row in enumerate(first_rows)
        for word, frequency in Counter(_split_words(texts[row])).items()
    ]
    candidates, words, frequencies = np.array(pairs, np.int64).reshape(-1, 3).T
    weights = weigh_words(frequencies, candidates, words, len(first_rows))
    order = np.argsort(words, kind="stable")
    places = np.split(order, np.cumsum(np.bincount(words, minlength=len(numbers)))[:-1]) if len(numbers) else []
    others = _list_other_answers(candidate_index, anchor_index)
    ranks = np.empty(len(queries))
    for row, query in enumerate(queries):
        scores = np.zeros((1, len(first_rows)))
        for word in _split_words(query):
            if word in numbers:
                having = places[numbers[word]]
                scores[0, candidates[having]] += weights[having]
        ranks[row] = _rank_candidates(scores, candidate_index[row : row + 1], others[row : row + 1])[0]
    return ranks


def rank_statistics(ranks: np.ndarray) -> np.ndarray:
    """Statistics [rows, 6] of ranks: gain at 10, found at 1, 5 and 10 (0 or 1), reciprocal rank, and 1."""
    import numpy as np

    gain = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)
    return np.column_stack([gain, ranks <= 1, ranks <= 5, ranks <= 10, 1 / ranks, np.ones(len(ranks))])


def compute_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics [n] from summed `rank_statistics` [6, n]: means over rows, each of which has one right text.

    NDCG (Järvelin and Kekäläinen, 2002) is then the right text's gain, 1 / log2(1 + rank): the ideal gain is 1.
    """
    names = ("ndcg_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "mrr")
    return {name: safe_ratio(part, sums[-1]) for name, part in zip(names, sums, strict=False)}


def _list_other_answers(candidate_index: np.ndarray, anchor_index: np.ndarray) -> list[list[int]]:
    """For each row the candidates that are positives of its anchor in other rows."""
    answers: dict[int, set[int]] = {}
    for anchor, candidate in zip(anchor_index.tolist(), candidate_index.tolist(), strict=True):
        answers.setdefault(anchor, set()).add(candidate)
    pairs = zip(anchor_index.tolist(), candidate_index.tolist(), strict=True)
    return [sorted(answers[anchor] - {candidate}) for anchor, candidate in pairs]


def _rank_candidates(scores: np.ndarray, right: np.ndarray, others: Sequence[Sequence[int]]) -> np.ndarray:
    """The rank of the candidate `right` [rows] by `scores` [rows, candidates]; ties get their mean rank.

    The candidates `others` of each row are left out.
    """
    import numpy as np

    for row, hidden in enumerate(others):
        scores[row, hidden] = -np.inf
    right_score = scores[np.arange(len(scores)), right][:, None]
    ranks: np.ndarray = 1 + (scores > right_score).sum(1) + ((scores == right_score).sum(1) - 1) / 2
    return ranks


def _split_words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
