"""How answers to questions are counted: SQuAD's rules (Rajpurkar et al., arXiv 1606.05250; 2.0: 1806.03822).

As the official evaluate-v2.0.py: the best of several references counts, and for a question without an answer the only
right one is the empty text.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MIN_ROWS = 10  # questions with an answer, and without one, from which a threshold is chosen
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


def overlap(span: tuple[int, ...], gold: tuple[int, int] | None) -> float:
    """The F1 of the tokens of two spans, first and last token included; 0 without a right span."""
    if gold is None or span[0] < 0:
        return 0.0
    common = min(span[1], gold[1]) - max(span[0], gold[0]) + 1
    return 2 * max(common, 0) / (span[1] - span[0] + 1 + gold[1] - gold[0] + 1)


def choose_threshold(margins: np.ndarray, answered_f1: np.ndarray, has_answer: np.ndarray, default: float) -> float:
    """The threshold for the best mean F1: a question whose margin is above it is left without an answer.

    `margins`: logit of no answer less that of the best span. `answered_f1`: the F1 if that span is given; without an
    answer a question has 1 if it is right that there is none. Among equally good thresholds, half way between two
    margins, the one closest to `default` is chosen; it is `default` if fewer than MIN_ROWS questions have an answer or
    fewer have none. As in SQuAD 2.0's evaluation script (Rajpurkar et al., arXiv 1806.03822).
    """
    import numpy as np

    if min(int(has_answer.sum()), int((~has_answer).sum())) < MIN_ROWS:
        return default
    order = np.argsort(margins, kind="stable")
    ranked = margins[order]
    # The first n questions are answered: their F1, and the questions without an answer among the others.
    answered = np.concatenate([[0.0], np.cumsum(answered_f1[order])])
    unanswered = (~has_answer).sum() - np.concatenate([[0.0], np.cumsum(~has_answer[order])])
    bounds = np.concatenate([[ranked[0] - 1], (ranked[:-1] + ranked[1:]) / 2, [ranked[-1] + 1]])
    # Questions with equal margins are on the same side.
    separate = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    totals = np.where(separate, answered + unanswered, -np.inf)
    best = np.flatnonzero(totals >= totals.max() - 1e-9)
    return float(bounds[best[np.abs(bounds[best] - default).argmin()]])
