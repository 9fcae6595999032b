"""How answers to questions are counted: SQuAD's rules (Rajpurkar et al., arXiv 1606.05250; 2.0: 1806.03822).

As the official evaluate-v2.0.py: the best of several references counts, and for a question without an answer the only
right one is the empty text.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(answer: str) -> str:
    """The answer in lower case without ASCII punctuation, English articles and spaces but single ones."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def score_answer(answer: str, references: Sequence[str]) -> tuple[float, float]:
    """F1 of the common words, and 1 if the answer is exactly right, else 0: each against its best reference.

    References of articles and punctuation alone do not count; if there are no others, only an empty answer is right.
    """
    words = normalize_answer(answer)
    right = [text for text in map(normalize_answer, references) if text] or [""]
    return max(_f1(words.split(), text.split()) for text in right), float(words in right)


def _f1(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    common = (Counter(predicted) & Counter(right)).total()
    return 2 * common / (len(predicted) + len(right))
