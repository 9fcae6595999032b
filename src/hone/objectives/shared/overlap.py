"""How much of a text another one has: ROUGE (Lin, 2004) and the counts of BLEU (Papineni et al., 2002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ROUGE = ("rouge1", "rouge2", "rougeL")
ORDERS = 4  # n-grams of one to four words


def rouge_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """ROUGE-1, 2 and L, F-measures with stemming [rows, 3] by rouge_score, against the best reference of each row.

    The best is the one with the highest ROUGE-1, the first of equals, and all three are of that one, as SciTLDR's
    evaluate.py has it (Cachola et al., 2020). Words are of a-z and 0-9 alone: other scripts score 0.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    found = np.zeros((len(answers), len(ROUGE)))
    for row, (answer, several) in enumerate(zip(answers, references, strict=True)):
        scores = [scorer.score(reference, answer) for reference in several]
        best = max(scores, key=lambda score: score["rouge1"].fmeasure)
        found[row] = [best[name].fmeasure for name in ROUGE]
    return found


def bleu_counts(answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """What sacreBLEU counts in each row [rows, 10], float64: lengths of answer and reference, matches, n-grams.

    Of several references the length is the closest one, and an n-gram matches as often as it is in any of them.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True)  # of a single row; the counts are the same
    found = np.zeros((len(answers), 2 + 2 * ORDERS))
    for row, (answer, several) in enumerate(zip(answers, references, strict=True)):
        score = scorer.sentence_score(answer, list(several))
        found[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return found


def bleu_from_counts(sums: np.ndarray) -> np.ndarray:
    """BLEU in 0..100 by columns of summed counts [10, n], smoothed as sacreBLEU's corpus_bleu is by default (exp)."""
    import numpy as np

    (said, wanted), (right, there) = sums[:2], np.split(sums[2:], 2)
    # Each order without a match counts as half as good as the one before it: Chen and Cherry, 2014, method 3.
    halved = 2.0 ** np.cumsum(right == 0, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(right > 0, right, 1 / halved) / there
        brevity = np.where(said < wanted, np.exp(1 - wanted / said), 1.0)
        score = 100 * brevity * np.exp(np.log(precision).mean(axis=0))
    found: np.ndarray = np.where((there > 0).all(axis=0) & (right > 0).any(axis=0), score, 0.0)
    return found
