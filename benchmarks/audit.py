"""How often tests and intervals err, beside what they replaced: `python benchmarks/audit.py [TABLE ...]`.

The tables are in Markdown, as they are in docs/promotion.md and docs/evaluation.md. Those of the margin's test and of
"better" are computed from probabilities; those of looks at one champion, of the guard of classes and of the intervals'
coverage are simulated. It ends with status 1 if a bound is broken: more than 5% false passes, less than 93% coverage.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pyarrow as pa
from scipy.stats import binom, binomtest

from hone.config.sections import Guards, Promotion
from hone.evaluation.judging.intervals import percentile_interval, share_interval
from hone.evaluation.judging.metrics import resample, totals
from hone.objectives.text_classification import TextClassification
from hone.promotion.contender import Contender
from hone.promotion.guards import judge_guards
from hone.promotion.match import Match
from hone.promotion.noninferiority import exact_p_value, score
from hone.promotion.rows import Rows
from hone.tracking.aliases import CANDIDATE, CHAMPION
from hone.tracking.reader import Version

LEVEL = 0.05
LEAST_CHANCE = 1e-5  # of a result, for it to count
RESAMPLES = 2_000

# Test rows, margin, and the true shares of rows that the candidate loses and wins: worse by the whole margin.
MARGINS = (
    (100, 0.01, 0.01, 0.0),
    (50, 0.02, 0.02, 0.0),
    (200, 0.01, 0.01, 0.0),
    (100, 0.01, 0.02, 0.01),
    (50, 0.05, 0.05, 0.0),
    (10, 0.1, 0.1, 0.0),
    (300, 0.05, 0.08, 0.03),
    (1000, 0.01, 0.02, 0.01),
    (3000, 0.005, 0.005, 0.0),
)

GRID_ROWS = (10, 20, 50, 100, 200, 500, 1000, 3000)
GRID_MARGINS = (0.005, 0.01, 0.02, 0.05, 0.1)
GRID_DIFFERING = (0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8)  # shares of rows that differ, beside those that are lost

# Shares of rows that candidate and champion answer otherwise, for a candidate that is one point better.
BETTER_ROWS, BETTER_BY, BETTER_DIFFERING = 1000, 0.01, (0.02, 0.05, 0.07, 0.1, 0.2)

LOOK_ROWS, LOOK_RUNS, LOOKS, LOOKS_OVER = 1000, 1000, (20, 52), (1, 20, 52)
LOOK_ACCURACY = 0.9

SEED = 1
LEAST_COVERAGE = 0.93
SUMS_RUNS, SUMS_ROWS = 1_000, (20, 50, 200)
INTERVAL_RESAMPLES = 1_000
ACCURACY_RUNS, MACRO_F1_RUNS = 4_000, 400
SKILL_SPREAD = 0.12  # standard deviation of the classes' accuracies
GUARD_RUNS = 100
# Classes, test rows in each, and the share of one class's rows that the candidate loses.
GUARDED = ((77, 13, 0.0), (77, 13, 0.5), (77, 40, 0.4), (20, 50, 0.3), (6, 30, 0.0), (6, 30, 0.4), (6, 100, 0.2))
ACCURACIES = ((10, 0.8), (20, 0.9), (50, 0.97), (100, 0.99), (300, 0.8), (1000, 0.98))
MACRO_F1S = ((77, 300, 0.8), (77, 3080, 0.92), (20, 200, 0.8), (50, 1000, 0.8), (5, 50, 0.8), (2, 100, 0.95))


@cache
def bootstrap_p_value(rows: int, won: int, lost: int, margin: float) -> float:
    """The share of paired resamples in which the candidate is worse by the margin or more."""
    draws = np.random.default_rng(0).multinomial(rows, (won / rows, lost / rows, 1 - (won + lost) / rows), RESAMPLES)
    return float((1 + np.count_nonzero((draws[:, 0] - draws[:, 1]) / rows + margin <= 0)) / (1 + RESAMPLES))


@cache
def exact(rows: int, won: int, lost: int, margin: float) -> float:
    """The exact test's p-value."""
    return exact_p_value(rows, won, lost, margin)


def passing(p_value: Callable[..., float], rows: int, margin: float, lost: float, won: float) -> float:
    """The probability that the margin is passed, over all results."""
    chance = 0.0
    for lost_rows in np.flatnonzero(binom.pmf(np.arange(rows + 1), rows, lost) > LEAST_CHANCE):
        chances = binom.pmf(np.arange(rows - lost_rows + 1), rows - lost_rows, won / (1 - lost))
        for won_rows in np.flatnonzero(chances > LEAST_CHANCE):
            if p_value(rows, int(won_rows), int(lost_rows), margin) <= LEVEL:
                chance += float(binom.pmf(lost_rows, rows, lost) * chances[won_rows])
    return chance


def print_margins() -> list[str]:
    """How often a candidate passes that is worse by the whole margin, and one that never differs."""
    broken = []
    print("| test rows | margin | rows lost, won | pass by bootstrap | pass by exact test |")
    print("|---|---|---|---|---|")
    for rows, margin, lost, won in MARGINS:
        shares = [passing(p_value, rows, margin, lost, won) for p_value in (bootstrap_p_value, exact)]
        cells = " | ".join(f"{100 * share:.1f}%" for share in shares)
        print(f"| {rows:,} | {margin:g} | {100 * lost:g}%, {100 * won:g}% | {cells} |", flush=True)
        if shares[1] > LEVEL:
            broken.append(f"{100 * shares[1]:.1f}% pass a margin of {margin:g} on {rows} rows")
    return broken


def least_passing(rows: int, margin: float) -> np.ndarray:
    """For each number of lost rows the least number of won rows that passes the margin; `rows` + 1 if none does.

    Results are ordered by their score, so the one with the lowest score that passes says which all others are.
    """
    lost, won = np.indices((rows + 1, rows + 1), np.int32)
    scores = np.where(lost + won <= rows, score(rows, won, lost, margin), -np.inf)
    values, first = np.unique(scores[scores > 0].round(9), return_index=True)
    places = np.flatnonzero(scores > 0)[first]
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        passes = exact(rows, int(places[middle] % (rows + 1)), int(places[middle] // (rows + 1)), margin) <= LEVEL
        low, high = (low, middle) if passes else (middle + 1, high)
    reached = scores >= (values[low] - 2e-9 if low < len(values) else np.inf)
    return np.where(reached.any(1), reached.argmax(1), rows + 1)


def print_grid() -> list[str]:
    """The largest probability that a candidate passes that is worse by the margin, over shares of differing rows."""
    print("| test rows |" + "".join(f" margin {margin:g} |" for margin in GRID_MARGINS))
    print("|---|" + "---|" * len(GRID_MARGINS))
    broken = []
    for rows in GRID_ROWS:
        cells = []
        for margin in GRID_MARGINS:
            lost_rows, least_won = np.arange(rows + 1), least_passing(rows, margin)
            chances = []
            for differing in GRID_DIFFERING:
                won, lost = differing / 2, differing / 2 + margin
                if won + lost > 1:
                    continue
                passes = binom.sf(least_won - 1, rows - lost_rows, won / (1 - lost))
                chances.append(float(binom.pmf(lost_rows, rows, lost) @ passes))
            cells.append(f"{100 * max(chances):.1f}%")
            if max(chances) > LEVEL + 1e-9:
                broken.append(f"{cells[-1]} pass a margin of {margin:g} on {rows} rows")
        print(f"| {rows:,} | {' | '.join(cells)} |", flush=True)
    return broken


def mcnemar(rows: int, won: int, lost: int, _: float) -> float:
    """The exact p-value of "not better"."""
    return float(binomtest(won, won + lost, 0.5, alternative="greater").pvalue) if won + lost else 1.0


def print_better() -> list[str]:
    """How often a candidate that is better by a point is found, and one that is as good."""
    print(f"| differing of {BETTER_ROWS:,} rows | bootstrap | McNemar | as good: bootstrap | as good: McNemar |")
    print("|---|---|---|---|---|")
    broken = []
    for differing in BETTER_DIFFERING:
        shares = []
        for better in (BETTER_BY, 0.0):
            lost, won = (differing - better) / 2, (differing + better) / 2
            tests = (cache(bootstrap_p_value), cache(mcnemar))
            shares += [passing(test, BETTER_ROWS, 0.0, lost, won) for test in tests]
        print(f"| {100 * differing:g}% | " + " | ".join(f"{100 * share:.0f}%" for share in shares) + " |", flush=True)
        if max(shares[2:]) > LEVEL + 0.01:  # the bootstrap's level is approximate
            broken.append(f"{100 * max(shares[2:]):.1f}% of candidates that are as good are better")
    return broken


def print_looks() -> list[str]:
    """How often at least one of many candidates is promoted, none of which is better than the champion.

    All are judged on the same rows. A row's chance to be answered correctly is the same for all versions.
    """
    print("| level_over | level of each | promoted in 20 looks | in 52 looks |")
    print("|---|---|---|---|")
    generator, first = np.random.default_rng(SEED), np.zeros((LOOK_RUNS, max(LOOKS)))
    for run in range(LOOK_RUNS):
        chances = generator.beta(9, 9 * (1 - LOOK_ACCURACY) / LOOK_ACCURACY, LOOK_ROWS)
        champion = generator.random(LOOK_ROWS) < chances
        candidates = generator.random((max(LOOKS), LOOK_ROWS)) < chances
        won, lost = (candidates & ~champion).sum(1), (champion & ~candidates).sum(1)
        first[run] = [bootstrap_p_value(LOOK_ROWS, int(w), int(x), 0.0) for w, x in zip(won, lost, strict=True)]
    for over in LOOKS_OVER:
        shares = [(first[:, :looks] <= LEVEL / over).any(1).mean() for looks in LOOKS]
        cells = " | ".join(f"{100 * share:.0f}%" for share in shares)
        print(f"| {over} | {LEVEL / over:.2g} | {cells} |", flush=True)
    return []


def predict_twice(
    generator: np.random.Generator, classes: int, rows: int, lost: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The right class of each row, the candidate's and the champion's prediction.

    The champion is right on 90% of the rows. The candidate loses 3% of all rows and wins 3%, and loses the share `lost`
    of the rows of class 0.
    """
    references = np.repeat(np.arange(classes), rows)
    others = (references + generator.integers(1, classes, len(references))) % classes
    theirs = generator.random(len(references)) < 0.9
    flips = generator.random(len(references))
    ours = np.where(flips < 0.03, False, np.where(flips > 0.97, True, theirs))
    ours &= (references > 0) | (generator.random(len(references)) >= lost)
    return references, np.where(ours, references, others), np.where(theirs, references, others)


def match_classes(references: np.ndarray, predictions: Mapping[str, np.ndarray], draws: np.ndarray) -> Match:
    """The two versions on rows of classes."""
    classes = int(references.max()) + 1
    labels = [f"class {label}" for label in range(classes)]
    objective, tokens = TextClassification(), pa.table({"label": references})
    outcomes = {
        name: objective.compute_outcome(tokens, {"scores": np.eye(classes)[predicted]}, {"labels": labels})
        for name, predicted in predictions.items()
    }
    version = Version("simulated", "2", "", "", {})
    candidate = Contender(version, objective, {"labels": labels}, 8, None, None)  # type: ignore[arg-type]
    rows = Rows("test", "", pa.table({"id": [str(row) for row in range(len(references))]}))
    return Match(rows, candidate, labels, outcomes, draws)


def refuses_by_percentiles(match: Match, limit: float) -> bool:
    """The rule that the guard replaced: a class's F1 fell by more than the limit with the confidence 1 - level / m."""
    targets = {"labels": match.labels}
    ours, theirs = (
        match.candidate.objective.compute_group_metrics(totals(match.outcomes[name].statistics, match.draws), targets)
        for name in (CANDIDATE, CHAMPION)
    )
    falls = [np.nan_to_num(theirs[label]["f1"]) - np.nan_to_num(ours[label]["f1"]) for label in match.labels]
    return any(np.quantile(fall[1:], LEVEL / len(falls)) > limit for fall in falls)


def print_guard() -> list[str]:
    """How often the guard of classes refuses or is inconclusive, at a limit of 0.1."""
    print("| classes | rows in each | lost in one class | refused before | refused | inconclusive |")
    print("|---|---|---|---|---|---|")
    settings = Promotion(guards=Guards(slice_fall=None, calibration=None), level=LEVEL)
    for classes, rows, lost in GUARDED:
        generator, counts = np.random.default_rng(SEED), np.zeros(3)
        for run in range(GUARD_RUNS):
            references, ours, theirs = predict_twice(generator, classes, rows, lost)
            draws = resample(len(references), RESAMPLES, run)
            match = match_classes(references, {CANDIDATE: ours, CHAMPION: theirs}, draws)
            [gate] = judge_guards(match, settings, [])
            counts += refuses_by_percentiles(match, 0.1), not gate.passed, gate.inconclusive
        cells = " | ".join(f"{100 * count / GUARD_RUNS:.0f}%" for count in counts)
        print(f"| {classes} | {rows} | {100 * lost:g}% | {cells} |", flush=True)
    return []


def draw_accuracy(generator: np.random.Generator, rows: int, accuracy: float) -> np.ndarray:
    """The accuracy on rows drawn at random, and on its resamples."""
    right = generator.binomial(rows, accuracy)
    return np.concatenate([[right], generator.binomial(rows, right / rows, INTERVAL_RESAMPLES)]) / rows


def draw_macro_f1(generator: np.random.Generator, confusion: np.ndarray, rows: int) -> np.ndarray:
    """The macro-F1 on rows drawn from `confusion`, the probabilities of pairs of classes, and on its resamples."""
    classes = len(confusion)
    references, predictions = np.divmod(generator.choice(classes**2, size=rows, p=confusion.ravel()), classes)
    statistics = np.zeros(
        (rows, 3 * (classes + 1))
    )  # right, support, predicted; the last class is that of unseen labels
    statistics[np.arange(rows), references] = references == predictions
    statistics[np.arange(rows), classes + 1 + references] = 1
    statistics[np.arange(rows), 2 * (classes + 1) + predictions] = 1
    sums = totals(statistics, resample(rows, INTERVAL_RESAMPLES, int(generator.integers(2**32))))
    return TextClassification().compute_metrics(sums, {"labels": [""] * classes})["macro_f1"]


def make_confusion(generator: np.random.Generator, classes: int, accuracy: float) -> np.ndarray:
    """Probabilities of pairs of classes: equally frequent, some easier than others, each mistaken for some others."""
    confusion = np.zeros((classes, classes))
    for label, share in enumerate(np.clip(generator.normal(accuracy, SKILL_SPREAD, classes), 0.3, 0.995)):
        others = np.arange(classes) != label
        confusion[label, others] = (1 - share) * generator.dirichlet(np.full(classes - 1, 0.3))
        confusion[label, label] = share
    return confusion / classes


def print_coverage() -> list[str]:
    """How often a 95% interval holds the value on infinitely many rows."""
    print("| metric | test rows | percentile interval | Hone's interval | their mean widths |")
    print("|---|---|---|---|---|")
    broken = []
    for rows, accuracy in ACCURACIES:
        generator = np.random.default_rng(SEED)
        figures = [draw_accuracy(generator, rows, accuracy) for _ in range(ACCURACY_RUNS)]
        broken += print_cell(f"accuracy {accuracy:g}", rows, figures, accuracy)
    for classes, rows, accuracy in MACRO_F1S:
        generator = np.random.default_rng(SEED)
        confusion = make_confusion(generator, classes, accuracy)
        truth = (2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1))).mean()
        figures = [draw_macro_f1(generator, confusion, rows) for _ in range(MACRO_F1_RUNS)]
        broken += print_cell(f"macro-F1 {truth:.2f} of {classes} classes", rows, figures, truth)
    for title, draw_rows, truth in ((ENTITIES, draw_entities, entity_f1()), (OVERLAPS, draw_overlaps, OVERLAP)):
        for rows in SUMS_ROWS:
            generator = np.random.default_rng(SEED)
            figures = [draw_ratio(generator, draw_rows(generator, rows)) for _ in range(SUMS_RUNS)]
            broken += print_cell(f"{title} {truth:.2f}", rows, figures, truth)
    return broken


ENTITIES, ENTITIES_IN_ROW, RECALL, SPURIOUS = "entity F1", 1.5, 0.85, 0.2  # means of a row
OVERLAPS, NOTHING, EVERYTHING, REST = "mean overlap (ROUGE)", 0.05, 0.1, (4.0, 3.0)
OVERLAP = EVERYTHING + (1 - NOTHING - EVERYTHING) * REST[0] / sum(REST)


def entity_f1() -> float:
    """The F1 on infinitely many rows of `draw_entities`."""
    found = ENTITIES_IN_ROW * RECALL
    return 2 * found / (ENTITIES_IN_ROW + found + SPURIOUS)


def draw_entities(generator: np.random.Generator, rows: int) -> np.ndarray:
    """Twice the right entities of each row, and those that are there and predicted: [rows, 2]."""
    there = generator.poisson(ENTITIES_IN_ROW, rows)
    right = generator.binomial(there, RECALL)
    return np.column_stack([2 * right, there + right + generator.poisson(SPURIOUS, rows)]).astype(float)


def draw_overlaps(generator: np.random.Generator, rows: int) -> np.ndarray:
    """The overlap of each row, some of them 0 or 1, and 1: [rows, 2]."""
    kind, rest = generator.random(rows), generator.beta(*REST, rows)
    overlaps = np.where(kind < NOTHING, 0, np.where(kind < NOTHING + EVERYTHING, 1, rest))
    return np.column_stack([overlaps, np.ones(rows)])


def draw_ratio(generator: np.random.Generator, statistics: np.ndarray) -> np.ndarray:
    """The ratio of the sums of two statistics, on the rows and on their resamples."""
    sums = totals(statistics, resample(len(statistics), INTERVAL_RESAMPLES, int(generator.integers(2**32))))
    ratios: np.ndarray = np.divide(sums[0], sums[1], out=np.full(len(sums[0]), np.nan), where=sums[1] > 0)
    return ratios


def print_cell(title: str, rows: int, figures: list[np.ndarray], truth: float) -> list[str]:
    """A line of the table; what is below the least coverage."""
    intervals = {
        "percentile": [percentile_interval(figure, 0.95) for figure in figures],
        "hone": [share_interval(figure, 0.95, rows) for figure in figures],
    }
    covered = [np.mean([x["low"] <= truth <= x["high"] for x in found]) for found in intervals.values()]
    widths = [np.mean([x["high"] - x["low"] for x in found]) for found in intervals.values()]
    shares = " | ".join(f"{100 * share:.1f}%" for share in covered)
    print(f"| {title} | {rows:,} | {shares} | {widths[0]:.3f}, {widths[1]:.3f} |", flush=True)
    return [f"{100 * covered[1]:.1f}% coverage of {title} on {rows} rows"] if covered[1] < LEAST_COVERAGE else []


TABLES: Mapping[str, Callable[[], list[str]]] = {
    "margins": print_margins,
    "grid": print_grid,
    "better": print_better,
    "looks": print_looks,
    "guard": print_guard,
    "coverage": print_coverage,
}


def main(names: list[str]) -> int:
    """Print the tables, all without `names`; 1 if a bound is broken."""
    broken = []
    for name in names or TABLES:
        broken += TABLES[name]()
        print()
    for bound in broken:
        print(f"broken: {bound}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
