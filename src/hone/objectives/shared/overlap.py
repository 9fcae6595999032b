"""Overlap of a text with its references: ROUGE (Lin, 2004) and the counts of BLEU (Papineni et al., 2002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ROUGE = ("rouge1", "rouge2", "rougeL")
ORDERS = 4  # n-grams of one to four words


def rouge_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """ROUGE-1, 2 and L [rows, 3]: F-measures in 0..1 with stemming, by rouge_score, against each row's best reference.

    The best is the first with the highest ROUGE-1, and all three scores are of that one, as in SciTLDR's evaluate.py
    (Cachola et al., 2020). rouge_score's words consist of a-z and 0-9 only: texts in other scripts score 0.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    scores = np.zeros((len(answers), len(ROUGE)))
    for row, (answer, row_references) in enumerate(zip(answers, references, strict=True)):
        candidates = [scorer.score(reference, answer) for reference in row_references]
        best = max(candidates, key=lambda score: score["rouge1"].fmeasure)
        scores[row] = [best[name].fmeasure for name in ROUGE]
    return scores


def bleu_counts(answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """sacreBLEU's counts for each row [rows, 10], float64: lengths of answer and reference in words, matches, n-grams.

    With several references the length is the closest one, and an n-gram matches as often as it occurs in any of them.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True)  # the setting for single rows; the counts are the same without it
    counts = np.zeros((len(answers), 2 + 2 * ORDERS))
    for row, (answer, row_references) in enumerate(zip(answers, references, strict=True)):
        score = scorer.sentence_score(answer, list(row_references))
        counts[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return counts


def bleu_from_counts(sums: np.ndarray) -> np.ndarray:
    """BLEU [n] in 0..100 from columns of summed counts [10, n], smoothed like sacreBLEU's corpus_bleu (exp)."""
    import numpy as np

    (answer_length, reference_length), (matches, ngrams) = sums[:2], np.split(sums[2:], 2)
    # Each order without a match counts half as much as the one before it: Chen and Cherry, 2014, method 3.
    divisors = 2.0 ** np.cumsum(matches == 0, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(matches > 0, matches, 1 / divisors) / ngrams
        brevity = np.where(answer_length < reference_length, np.exp(1 - reference_length / answer_length), 1.0)
        score = 100 * brevity * np.exp(np.log(precision).mean(axis=0))
    # Without any match, or any n-gram of some order, the score is 0, not a smoothed one.
    bleu: np.ndarray = np.where((ngrams > 0).all(axis=0) & (matches > 0).any(axis=0), score, 0.0)
    return bleu
