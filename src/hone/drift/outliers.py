"""The test for recent rows that are unlike any of the training, and the share of such rows that it can see."""

from __future__ import annotations

import numpy as np

from hone.drift.compare import Finding, compute_p_value, draw_arrangements

TAILS = (0.01, 0.02, 0.05, 0.1, 0.2)  # shares of all compared rows that count as the farthest
NEIGHBOURS = 5  # whose mean cosine similarity tells how near a row is to the training
POWER = 0.8  # share of checks in which a share of rows that can be seen is found
TRIALS = 2000  # simulated checks for it, with a standard error of 1 point
CHANCES = 50_000  # simulated checks without such rows


def compare_outliers(reference: np.ndarray, recent: np.ndarray, permutations: int, seed: int) -> Finding:
    """Whether recent rows are farther from the training than its own rows, by unit embeddings [rows, dimensions].

    A random half of the reference stands for the training; the rows of the other half and the recent ones are ranked by
    the mean similarity of their nearest neighbours in it. Without drift these rows are exchangeable given the first
    half (Bates and others, Testing for outliers with conformal p-values, 2023), so permuting them is exact. The test
    takes the largest excess of recent rows among the farthest 1 to 20%, in standard deviations: a few rows from
    elsewhere lie all there, where a mean hardly moves. Statistic and effect are that excess as a share: of the recent
    rows there, less that of the reference.
    """
    order = np.random.default_rng(seed + 2).permutation(len(reference))
    half, others = reference[order[: len(order) // 2]], reference[order[len(order) // 2 :]]
    neighbours = min(NEIGHBOURS, len(half))
    similarities = np.concatenate([others, recent]) @ half.T
    nearness = np.partition(similarities, -neighbours, axis=1)[:, -neighbours:].mean(1)
    limits = np.sort(nearness)[_count_farthest(len(nearness)) - 1]
    is_far = (nearness <= limits[:, None]).astype(float)  # [tails, rows]; rows of equal nearness together
    is_recent = draw_arrangements(len(others), len(recent), permutations, seed)
    scores = _standardize(is_far @ is_recent, is_far.sum(1), len(others), len(recent))
    tail = int(np.argmax(scores[:, 0]))
    before, now = is_far[tail, : len(others)].mean(), is_far[tail, len(others) :].mean()
    note = f"of the farthest {TAILS[tail]:.0%}: {before:.1%} of the rows then, {now:.1%} now"
    effect = max(0.0, float(now - before))
    p = compute_p_value(scores.max(0))
    return Finding("outliers", "excess", effect, p, len(others), len(recent), note, effect)


def find_visible_share(reference: int, recent: int, permutations: int, level: float, seed: int) -> float | None:
    """The least share of the recent rows that the test finds in POWER of checks if they are farther than all others.

    Simulated: the order of all other rows is random. `reference` counts the rows of the whole reference, `level` is the
    p-value to reach. None if not even recent rows that are all such are found.
    """
    others = reference - reference // 2
    sizes = _count_farthest(others + recent)
    generator = np.random.default_rng(seed + 3)

    def draw(strange: int, number: int) -> np.ndarray:
        """The test's statistic, [number], where the farthest `strange` rows are recent."""
        taken = np.minimum(sizes, strange)
        free = np.diff(np.append(sizes - taken, others + recent - strange), prepend=0)  # places by tail
        counts = generator.multivariate_hypergeometric(free, recent - strange, number)[:, :-1].cumsum(1) + taken
        scores: np.ndarray = _standardize(counts.T, sizes, others, recent).max(0)
        return scores

    by_chance = np.sort(draw(0, CHANCES))

    def is_found(strange: int) -> bool:
        lower = np.searchsorted(by_chance, draw(strange, TRIALS) - 1e-12)
        higher = permutations * (1 - lower / CHANCES)
        return bool(np.mean((1 + higher) / (1 + permutations) <= level) >= POWER)

    if not is_found(recent):
        return None
    low, high = 0, recent
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high / recent


def _count_farthest(rows: int) -> np.ndarray:
    """The number of rows in each tail, int [tails]."""
    counts: np.ndarray = np.maximum(1, np.ceil(rows * np.array(TAILS)).astype(int))
    return counts


def _standardize(counts: np.ndarray, sizes: np.ndarray, others: int, recent: int) -> np.ndarray:
    """Counts of recent rows in tails, [tails, arrangements], less their mean, in standard deviations.

    The moments are those of the hypergeometric distribution; 0 where a tail has all rows.
    """
    rows = others + recent
    mean = sizes * (recent / rows)
    deviation = np.sqrt(mean * others / rows * (rows - sizes) / (rows - 1))
    scores: np.ndarray = (counts - mean[:, None]) / np.where(deviation > 0, deviation, np.inf)[:, None]
    return scores
