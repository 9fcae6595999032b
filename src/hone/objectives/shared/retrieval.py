"""How well texts are found: the rank of the right one among all, by embeddings and by words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from hone.objectives.shared.statistics import safe_ratio

if TYPE_CHECKING:
    import numpy as np

BLOCK = 512  # anchors that are compared with all candidates at once: 20 MB for 10,000 candidates
_K1, _B = 1.2, 0.75
_WORD = re.compile(r"\w+")


def distinct_indices(texts: Sequence[Hashable]) -> np.ndarray:
    """For each text the place of its first like among the distinct ones, which are counted in order (int64)."""
    import numpy as np

    places: dict[Hashable, int] = {}
    return np.array([places.setdefault(text, len(places)) for text in texts], np.int64)


def compute_ranks(embedded: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rank, from 1, of each row's positive among the distinct ones: float64 [rows].

    `embedded` [rows, 2, width]: unit vectors of anchors and positives; `places` as `distinct` gives them.
    """
    import numpy as np

    _, first = np.unique(places, return_index=True)
    candidates = embedded[first, 1].astype(np.float64)
    found = np.empty(len(embedded))
    for start in range(0, len(embedded), BLOCK):
        cosines = embedded[start : start + BLOCK, 0].astype(np.float64) @ candidates.T
        found[start : start + BLOCK] = _ranked(cosines, places[start : start + BLOCK])
    return found


def bm25_ranks(queries: Sequence[str], texts: Sequence[str], places: np.ndarray) -> np.ndarray:
    """The same by Okapi BM25 (Robertson and Zaragoza, 2009) with k1 1.2 and b 0.75, words without regard to case."""
    import numpy as np

    _, first = np.unique(places, return_index=True)
    counts = [Counter(_words(texts[i])) for i in first]
    lengths = np.array([sum(count.values()) for count in counts], np.float64)
    damped = _K1 * (1 - _B + _B * lengths / max(float(lengths.mean()), 1.0))
    postings: dict[str, list[tuple[int, int]]] = {}
    for place, count in enumerate(counts):
        for word, times in count.items():
            postings.setdefault(word, []).append((place, times))
    weights = {}
    for word, found in postings.items():
        at, times = np.array(found, np.int64).T
        rarity = math.log(1 + (len(counts) - len(at) + 0.5) / (len(at) + 0.5))
        weights[word] = at, rarity * times * (_K1 + 1) / (times + damped[at])
    result = np.empty(len(queries))
    for row, query in enumerate(queries):
        scores = np.zeros((1, len(counts)))
        for word in _words(query):
            if word in weights:
                at, weight = weights[word]
                scores[0, at] += weight
        result[row] = _ranked(scores, places[row : row + 1])[0]
    return result


def rank_statistics(found: np.ndarray) -> np.ndarray:
    """[rows, 6] of ranks: gain at 10, there at 1, 5 and 10, reciprocal rank, and 1."""
    import numpy as np

    gain = np.where(found <= 10, 1 / np.log2(1 + found), 0.0)
    return np.column_stack([gain, found <= 1, found <= 5, found <= 10, 1 / found, np.ones(len(found))])


def compute_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """From summed `statistics` [6, n] the figures [n], each a mean over anchors, of which each has one right text.

    NDCG (Järvelin and Kekäläinen, 2002) is then the right text's gain, 1 / log2(1 + rank), for the best one is 1.
    """
    names = ("ndcg_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "mrr")
    return {name: safe_ratio(part, sums[-1]) for name, part in zip(names, sums, strict=False)}


def _ranked(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank of the candidate `right` [rows] by `scores` [rows, candidates], in the middle of those as good."""
    import numpy as np

    own = scores[np.arange(len(scores)), right][:, None]
    found: np.ndarray = 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
