"""The drift tests: each compares recent rows with rows from the time of training and computes a p-value.

A permutation test counts the observed arrangement among the drawn ones, so its p-value is never 0 (Phipson and Smyth,
Permutation p-values should never be zero, 2010). Whole rows are permuted: the words or labels of one row are not
independent draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hone.registry.row_text import split_words

MIN_EXPECTED = 5.0  # minimum expected count of a cell in a chi-square test (Cochran, 1954)
OTHER_NAMES = "(other)"
WORDS = 2000  # number of most frequent words, of both samples together, whose shares are compared
SHOWN = 5  # names in a note
FOLDS = 5  # of the cross-validation
RIDGE = 1.0  # added to the diagonal of the Gram matrix of unit-length embeddings, as RidgeClassifier's default


@dataclass(frozen=True)
class Finding:
    """The result of one test: its statistic (`measure` is its name), p-value, and a note on what differs.

    `effect` is in the same unit for all tests: the least share of the recent rows, 0 to 1, that must differ from those
    of the training if the samples' shares were exact. `adjusted` is the p-value corrected for the number of tests, set
    by `correct_p_values`; `reference` and `recent` count the rows compared.
    """

    name: str
    measure: str
    statistic: float
    p: float
    reference: int
    recent: int
    note: str = ""
    effect: float = 0.0
    adjusted: float = field(default=1.0)
    drifted: bool = False


def compare_numbers(name: str, reference: Sequence[float], recent: Sequence[float], unit: str) -> Finding:
    """The two-sample Kolmogorov-Smirnov test; statistic and effect are the largest distance of the distributions."""
    from scipy.stats import ks_2samp

    result = ks_2samp(reference, recent, method="asymp")
    note = f"median {np.median(reference):g}{unit and ' ' + unit} then, {np.median(recent):g} now"
    distance = float(result.statistic)
    return Finding(name, "KS", distance, float(result.pvalue), len(reference), len(recent), note, distance)


def compare_shares(name: str, reference: Sequence[str], recent: Sequence[str]) -> Finding:
    """Pearson's chi-square test that two samples of names have the same shares; the statistic is Cramer's V.

    Names with an expected count below MIN_EXPECTED are combined. The effect is the total variation of the shares.
    """
    from scipy.stats import chi2_contingency

    counts = Counter(reference), Counter(recent)
    names, table = _build_contingency_table(*counts)
    sizes = len(reference), len(recent)
    if len(names) < 2:
        return Finding(name, "V", 0.0, 1.0, *sizes, f"all {names[0]}" if names else "")
    result = chi2_contingency(table, correction=False)
    cramers_v = float(np.sqrt(result.statistic / table.sum()))
    shares = table / table.sum(1)[:, None]
    effect = float(np.abs(shares[1] - shares[0]).sum() / 2)
    return Finding(name, "V", cramers_v, float(result.pvalue), *sizes, _describe_changes(names, shares), effect)


def compare_missing(name: str, reference: tuple[int, int], recent: tuple[int, int]) -> Finding:
    """Fisher's exact test of the share of rows without a value; each pair is (rows without it, all rows)."""
    from scipy.stats import fisher_exact

    table = [[lacking, rows - lacking] for lacking, rows in (reference, recent)]
    reference_share, recent_share = (lacking / max(1, rows) for lacking, rows in (reference, recent))
    note = f"{reference_share:.1%} then, {recent_share:.1%} now"
    difference, p = recent_share - reference_share, float(fisher_exact(table).pvalue)
    return Finding(name, "difference", difference, p, reference[1], recent[1], note, abs(difference))


def compare_vocabulary(reference: Sequence[str], recent: Sequence[str], permutations: int, seed: int) -> Finding:
    """The Jensen-Shannon distance (base 2, 0 to 1) of the words' shares, with a p-value by permutation of rows.

    A word counts once per row; the 2,000 most frequent words of both samples together are compared. The effect is the
    largest change of a word's share of rows.
    """
    from scipy.spatial.distance import jensenshannon
    from sklearn.feature_extraction.text import CountVectorizer

    sizes = len(reference), len(recent)
    counter = CountVectorizer(binary=True, max_features=WORDS, analyzer=split_words, dtype=np.float64)
    try:
        rows = counter.fit_transform([*reference, *recent])
    except ValueError:  # no word in any row
        return Finding("vocabulary", "JS distance", 0.0, 1.0, *sizes, "no words")
    is_recent = draw_arrangements(*sizes, permutations, seed)
    counts = (rows.T @ is_recent).T
    rest = np.asarray(rows.sum(0)) - counts
    if not counts.any(1).all() or not rest.any(1).all():
        return Finding("vocabulary", "JS distance", 1.0, 1.0, *sizes, "too few words", 1.0)
    distances = jensenshannon(rest, counts, base=2, axis=1)
    table = np.stack([rest[0] / sizes[0], counts[0] / sizes[1]])
    note = _describe_changes(counter.get_feature_names_out().tolist(), table)
    effect = float(np.abs(table[1] - table[0]).max())
    return Finding("vocabulary", "JS distance", float(distances[0]), compute_p_value(distances), *sizes, note, effect)


def compare_embeddings(reference: np.ndarray, recent: np.ndarray, permutations: int, seed: int) -> Finding:
    """Whether a linear classifier separates recent from reference rows by their embeddings [rows, dimensions].

    The classifier two-sample test of Lopez-Paz and Oquab (2017): the mean AUC of cross-validation, with a p-value by
    permutation, the classifier retrained for each one (Ojala and Garriga, 2010). The classifier is ridge regression on
    the two classes (scikit-learn's RidgeClassifier): for fixed folds its scores are a linear map of the labels, so one
    matrix product scores all permutations, while logistic regression would have to be fitted thousands of times. If a
    share of the recent rows is recognized and nothing else, the AUC is a half and half of it: that share is the effect.
    """
    sizes = len(reference), len(recent)
    vectors = np.concatenate([reference, recent]).astype(np.float64)
    vectors -= vectors.mean(0)
    if vectors.shape[1] > len(vectors):  # SVD: the same inner products in fewer dimensions
        left, values, _ = np.linalg.svd(vectors, full_matrices=False)
        vectors = left * values
    is_recent = draw_arrangements(*sizes, permutations, seed)
    # Folds are not stratified by class: all permutations must use the same folds.
    folds = np.array_split(np.random.default_rng(seed + 1).permutation(len(vectors)), FOLDS)
    fold_areas = [_fold_areas(vectors, is_recent, held_out) for held_out in folds]
    areas = np.nanmean(fold_areas, axis=0)
    note = "0.5: cannot be distinguished, 1: always"
    effect = max(0.0, 2 * float(areas[0]) - 1)
    return Finding("domain classifier", "AUC", float(areas[0]), compute_p_value(areas), *sizes, note, effect)


def draw_arrangements(reference: int, recent: int, permutations: int, seed: int) -> np.ndarray:
    """Which rows count as recent (1.0, else 0.0), the true arrangement first: float64 [rows, 1 + permutations]."""
    observed = np.repeat([0.0, 1.0], [reference, recent])
    generator = np.random.default_rng(seed)
    return np.stack([observed, *(generator.permutation(observed) for _ in range(permutations))], axis=1)


def compute_p_value(statistics: np.ndarray) -> float:
    """The share of arrangements with a statistic at least as large as that of the first, the true one."""
    # Equal arrangements may differ by rounding: 1e-12 counts them as equal.
    return float(np.mean(statistics >= statistics[0] - 1e-12))


def correct_p_values(findings: Sequence[Finding], level: float, least_effect: float = 0.0) -> list[Finding]:
    """The findings with `adjusted` p-values (Holm, A simple sequentially rejective multiple test procedure, 1979).

    Without drift, the probability of any finding of drift is at most `level`, whatever their dependence. One whose
    effect is below `least_effect` is none.
    """
    order = np.argsort([finding.p for finding in findings], kind="stable")
    ranked = np.array([findings[index].p for index in order]) * np.arange(len(findings), 0, -1)
    adjusted = np.empty(len(findings))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(ranked))
    return [
        replace(finding, adjusted=float(p), drifted=bool(p <= level and finding.effect >= least_effect))
        for finding, p in zip(findings, adjusted, strict=True)
    ]


def _fold_areas(vectors: np.ndarray, is_recent: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """The AUC on the rows `held_out` for each arrangement: [arrangements]; nan if they are all of one class."""
    from scipy.stats import rankdata

    rest = np.setdiff1d(np.arange(len(vectors)), held_out)
    gram = vectors[rest].T @ vectors[rest]
    gram.flat[:: len(gram) + 1] += RIDGE
    targets = is_recent[rest] - is_recent[rest].mean(0)
    scores = vectors[held_out] @ np.linalg.solve(gram, vectors[rest].T @ targets)
    held_out_recent = is_recent[held_out]
    positive = held_out_recent.sum(0)
    negative = len(held_out) - positive
    above = (rankdata(scores, axis=0) * held_out_recent).sum(0) - positive * (positive + 1) / 2
    pairs = positive * negative
    areas: np.ndarray = np.divide(above, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return areas


def _build_contingency_table(reference: Counter[str], recent: Counter[str]) -> tuple[list[str], np.ndarray]:
    """Names and their counts [2, names]; names with an expected count below MIN_EXPECTED in a sample are combined."""
    total = reference + recent
    share = min(reference.total(), recent.total()) / max(1, total.total())
    names = [name for name, count in total.most_common() if count * share >= MIN_EXPECTED]
    table = np.array([[counts[name] for name in names] for counts in (reference, recent)], float).reshape(2, -1)
    others = np.array([[reference.total()], [recent.total()]]) - table.sum(1, keepdims=True)
    if others.sum() * share >= MIN_EXPECTED:
        return [*names, OTHER_NAMES], np.hstack([table, others])
    if others.any() and names:
        table[:, -1:] += others  # too few even together: added to the rarest tested name
    return names, table


def _describe_changes(names: Sequence[str], parts: np.ndarray) -> str:
    """The names with the largest changes of their shares: `refund 3.1% -> 9.8%`."""
    largest = np.argsort(-np.abs(parts[1] - parts[0]), kind="stable")[:SHOWN]
    return ", ".join(f"{names[index]} {parts[0, index]:.1%} -> {parts[1, index]:.1%}" for index in largest.tolist())
