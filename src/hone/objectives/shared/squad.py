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
    """F1 of the words in common, and 1 where the answer is exactly right, else 0: each with its best reference.

    References of nothing but articles and punctuation do not count; where no other is there, no answer is right.
    """
    said = normalize_answer(answer)
    right = [text for text in map(normalize_answer, references) if text] or [""]
    return max(_f1(said.split(), text.split()) for text in right), float(said in right)


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    common = (Counter(said) & Counter(right)).total()
    return 2 * common / (len(said) + len(right))
