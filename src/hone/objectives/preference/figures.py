"""Rewards, and statistics of how well they agree with what people chose."""

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
    """Log ratios of a model's probabilities to its reference's: `sums` [rows, 2] over the tokens of chosen, rejected.

    `drift` [rows]: half the squared log ratio of a token, summed over the tokens of both.
    """

    sums: np.ndarray
    drift: np.ndarray


def compute_log_ratios(tokens: pa.Table, predictions: Predictions, lengths: np.ndarray) -> LogRatios | None:
    """The log ratios of completions with `lengths` [rows, 2] tokens; None if either model's are not known."""
    import numpy as np

    if "log_probs" not in predictions or "reference" not in tokens.column_names:
        return None
    sums, drift = np.zeros(lengths.shape), np.zeros(len(lengths))
    columns = zip(predictions["log_probs"], tokens["reference"].to_pylist(), lengths.tolist(), strict=True)
    for index, (model_log_probs, reference_log_probs, (chosen, rejected)) in enumerate(columns):
        scored = chosen + rejected  # KTO's log-probabilities of another row's completion follow
        ours, theirs = (np.asarray(row[:scored], np.float64) for row in (model_log_probs, reference_log_probs))
        log_ratios = ours - theirs
        sums[index] = log_ratios[:chosen].sum(), log_ratios[chosen:].sum()
        drift[index] = (log_ratios**2).sum() / 2
    return LogRatios(sums, drift)


def win_rate(margins: np.ndarray) -> np.ndarray:
    """1 where a margin is above 0, 0 where it is below, 0.5 for a tie."""
    import numpy as np

    wins: np.ndarray = (np.sign(margins) + 1) / 2
    return wins


def preference_statistics(
    lengths: np.ndarray, scores: np.ndarray, rewards: np.ndarray, ratios: LogRatios | None, *, is_model: bool
) -> np.ndarray:
    """Statistics [rows, 12], float64, from whose sums `compute_metrics` computes the metrics of any rows.

    Right by rewards, and rows; right by scores, and pairs; rewards of chosen and rejected, and the numbers of both;
    drift, and the number of its tokens; log-probability of chosen, and the number of its tokens. What only a language
    model has is 0 for others.
    """
    import numpy as np

    is_scored = (lengths > 0) * float(is_model)
    is_pair = (lengths > 0).all(1)
    zeros = np.zeros(len(lengths))
    return np.column_stack(
        [
            win_rate(rewards[:, 0] - rewards[:, 1]),
            np.ones(len(lengths)),
            win_rate(scores[:, 0] - scores[:, 1]) * is_pair,
            is_pair,
            rewards * is_scored,
            is_scored,
            ratios.drift if ratios else zeros,
            lengths.sum(1) if ratios else zeros,
            scores[:, 0] * lengths[:, 0] * is_scored[:, 0],
            lengths[:, 0] * is_scored[:, 0],
        ]
    )


def compute_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The five metrics [n] from summed `preference_statistics` [12, n]; nan where undefined.

    `reward_accuracy`: share of rows whose chosen has the higher reward, a tie counting half; a single completion is
    right if it is chosen and its reward above 0, or rejected and its reward below. `ranking_accuracy`: share of pairs
    whose chosen has the higher mean log-probability of a token. `margin`: the mean reward of the chosen minus that of
    the rejected. `kl`, in nats: the mean of half the squared log ratio over the completions' tokens, which is the KL
    divergence to second order, whichever of the two models the tokens come from (J. Schulman, Approximating KL
    Divergence, 2020: k2). `chosen_log_prob`: the mean log-probability of a token, in nats.
    """
    right, rows, ranked, pairs, chosen, rejected, n_chosen, n_rejected, drift, drift_tokens, log_prob, tokens = sums
    return {
        "reward_accuracy": safe_ratio(right, rows),
        "ranking_accuracy": safe_ratio(ranked, pairs),
        "margin": safe_ratio(chosen, n_chosen) - safe_ratio(rejected, n_rejected),
        "kl": safe_ratio(drift, drift_tokens),
        "chosen_log_prob": safe_ratio(log_prob, tokens),
    }


def length_scores(train: pa.Table, test: pa.Table) -> np.ndarray:
    """Scores [rows, 2]: each completion's length minus the median length in training, in tokens; 0 if it is missing.

    The sign is flipped if the shorter completion wins more training rows. People often choose the longer answer
    (Singhal et al., arXiv 2310.03716), so a model may have learned nothing but that.
    """
    import numpy as np

    def stack_lengths(table: pa.Table) -> Any:
        return np.stack([table[name].to_numpy() for name in ("chosen", "rejected")], axis=1).astype(np.float64)

    train_lengths, test_lengths = stack_lengths(train), stack_lengths(test)
    median = np.median(train_lengths[train_lengths > 0])
    train_scores, test_scores = (
        np.where(lengths > 0, lengths - median, 0.0) for lengths in (train_lengths, test_lengths)
    )
    longer_wins = win_rate(train_scores[:, 0] - train_scores[:, 1]).mean() >= 0.5
    scores: np.ndarray = test_scores if longer_wins else -test_scores
    return scores
