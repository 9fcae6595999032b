"""Rewards, and what tells how well they agree with what people chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.objectives.shared.statistics import safe_ratio

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from hone.objectives.base import Predictions


@dataclass(frozen=True)
class LogRatios:
    """What a model says less what its reference says: `sums` [rows, 2] of chosen and rejected.

    `drift` [rows]: half the squared log ratio, summed over the tokens of both.
    """

    sums: np.ndarray
    drift: np.ndarray


def compute_log_ratios(tokens: pa.Table, predictions: Predictions, lengths: np.ndarray) -> LogRatios | None:
    """The log ratios of a model's tokens to its reference's; None where one of the two is not known."""
    import numpy as np

    if "log_probs" not in predictions or "reference" not in tokens.column_names:
        return None
    sums, drift = np.zeros(lengths.shape), np.zeros(len(lengths))
    each = zip(predictions["log_probs"], tokens["reference"].to_pylist(), lengths.tolist(), strict=True)
    for row, (ours, theirs, (chosen, rejected)) in enumerate(each):
        both = chosen + rejected
        ratio = np.asarray(ours[:both], np.float64) - np.asarray(theirs[:both], np.float64)
        sums[row] = ratio[:chosen].sum(), ratio[chosen:].sum()
        drift[row] = (ratio**2).sum() / 2
    return LogRatios(sums, drift)


def win_rate(margins: np.ndarray) -> np.ndarray:
    """1 where a margin is above 0, 0 where it is below, half where it is 0."""
    import numpy as np

    found: np.ndarray = (np.sign(margins) + 1) / 2
    return found


def preference_statistics(
    lengths: np.ndarray, scores: np.ndarray, rewards: np.ndarray, ratios: LogRatios | None, *, is_model: bool
) -> np.ndarray:
    """[rows, 12], of which `figures` makes the figures of any rows.

    Right and judged, by rewards; right and pairs, by scores; rewards of chosen and rejected, and their numbers;
    drift, and the tokens it is over; log-probability of chosen, and its tokens. What only a language model has is 0
    for others.
    """
    import numpy as np

    there = (lengths > 0) * float(is_model)
    pairs = (lengths > 0).all(1)
    nothing = np.zeros(len(lengths))
    return np.column_stack(
        [
            win_rate(rewards[:, 0] - rewards[:, 1]),
            np.ones(len(lengths)),
            win_rate(scores[:, 0] - scores[:, 1]) * pairs,
            pairs,
            rewards * there,
            there,
            ratios.drift if ratios else nothing,
            lengths.sum(1) if ratios else nothing,
            scores[:, 0] * lengths[:, 0] * there[:, 0],
            lengths[:, 0] * there[:, 0],
        ]
    )


def compute_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """From summed `statistics` [12, n] the five figures [n].

    `reward_accuracy`: rows whose chosen has the higher reward, a tie for half; a single completion is right where it
    is wanted and its reward above 0, or unwanted and below. `ranking_accuracy`: pairs whose chosen has the higher mean
    log-probability of a token. `margin`: the mean reward of the chosen less that of the rejected. `kl`: the mean of
    half the squared log ratio over the completions' tokens, which is the KL divergence to second order, whichever of
    the two the tokens come from (J. Schulman, Approximating KL Divergence, 2020: k2). `chosen_log_prob`: the mean.
    """
    right, judged, ranked, pairs, chosen, rejected, n_chosen, n_rejected, drift, measured, said, tokens = sums
    return {
        "reward_accuracy": safe_ratio(right, judged),
        "ranking_accuracy": safe_ratio(ranked, pairs),
        "margin": safe_ratio(chosen, n_chosen) - safe_ratio(rejected, n_rejected),
        "kl": safe_ratio(drift, measured),
        "chosen_log_prob": safe_ratio(said, tokens),
    }


def length_scores(train: pa.Table, test: pa.Table) -> np.ndarray:
    """[rows, 2]: each completion's tokens over the middle length of training, 0 for none; or under it.

    The sign is the one that is right on more training rows. People often choose the longer answer (Singhal et al.,
    arXiv 2310.03716), so that a model may learn that and no more.
    """
    import numpy as np

    def lengths(table: pa.Table) -> Any:
        return np.stack([table[name].to_numpy() for name in ("chosen", "rejected")], axis=1).astype(np.float64)

    before, now = lengths(train), lengths(test)
    middle = np.median(before[before > 0])
    known, asked = (np.where(found > 0, found - middle, 0.0) for found in (before, now))
    longer = win_rate(known[:, 0] - known[:, 1]).mean() >= 0.5
    scores: np.ndarray = asked if longer else -asked
    return scores
