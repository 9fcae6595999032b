"""The weights of Okapi BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Saturation of a word's frequency in a text, and normalization by the text's length.
K1, B = 1.2, 0.75


def weigh_words(frequencies: np.ndarray, text_index: np.ndarray, word_index: np.ndarray, texts: int) -> np.ndarray:
    """The weight of each occurring pair of a text and a word, float64 [pairs].

    `frequencies` says how often the word is in the text, `text_index` and `word_index` are their numbers, each [pairs];
    `texts` is the number of texts, also of those without a word. Inverse document frequencies are those of Lucene, with
    1 + inside the logarithm: the weight of a word in most texts stays positive.
    """
    import numpy as np

    lengths = np.bincount(text_index, frequencies, texts)
    damping = K1 * (1 - B + B * lengths / max(float(lengths.mean()), 1.0)) if texts else lengths
    texts_with_word = np.bincount(word_index)
    rarity = np.log(1 + (texts - texts_with_word + 0.5) / (texts_with_word + 0.5))
    weights: np.ndarray = rarity[word_index] * frequencies * (K1 + 1) / (frequencies + damping[text_index])
    return weights
