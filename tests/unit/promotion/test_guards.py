"""The guards, on falls whose size and significance are known."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import false_discovery_control

from hone.config.sections import Guards, Promotion
from hone.evaluation.judging import metrics
from hone.objectives.text_classification import TextClassification
from hone.promotion.gates import Gate
from hone.promotion.guards import (
    adjust_holm,
    find_class_falls,
    find_slice_falls,
    judge_benchmarks,
    judge_falls,
    judge_guards,
)
from hone.promotion.match import Match
from hone.promotion.rows import Rows
from hone.tracking.aliases import CANDIDATE, CHAMPION
from tests.unit.promotion.matches import contender, hits, match, match_numbers


def only(settings: dict[str, Any], given: Match, *slices: str, **more: Any) -> Gate:
    """The gate of the one guard that is set."""
    guards = Guards(**({"slice_fall": None, "class_fall": None, "calibration": None} | settings))
    [gate] = judge_guards(given, Promotion(guards=guards, resamples=500, **more), slices)
    return gate


def test_a_slice_that_fell_for_certain_refuses_and_one_by_chance_is_inconclusive() -> None:
    n = 400
    source = np.where(np.arange(n) < 100, "chat", "mail")
    theirs = hits(n, 0.8)
    theirs[:100] = True
    fallen = np.ones(n, bool)
    fallen[:40] = False  # chat falls from 100% to 60%
    gate = only({"slice_fall": 0.05}, match(fallen, theirs, source=source), "source")
    assert not gate.passed and not gate.inconclusive
    assert "beyond it: chat" in gate.note and gate.figure == pytest.approx(0.4)
    # 10 rows lost and 4 won: 6 points down, which is chance in one of eleven.
    noisy, theirs[:4] = theirs.copy(), False
    noisy[4:14], noisy[:4] = False, True
    gate = only({"slice_fall": 0.05}, match(noisy, theirs, source=source), "source")
    assert gate.passed and gate.inconclusive and gate.figure == pytest.approx(0.06)
    assert "beyond it, perhaps by chance: chat" in gate.note
    assert not only({"slice_fall": 0.05}, match(noisy, theirs, source=source), "source", inconclusive="refuse").passed
    # A slice that the rows have no column for is none.
    assert find_slice_falls(match(noisy, theirs), "nothing") == {}


def test_a_significant_fall_within_the_limit_passes() -> None:
    theirs = np.ones(1000, bool)
    ours = theirs.copy()
    ours[:20] = False
    gate = only({"slice_fall": 0.02}, match(ours, theirs), "source")
    assert gate.passed and not gate.inconclusive
    assert gate.p is not None and gate.p < 1e-5


def test_the_more_slices_the_surer_a_fall_must_be() -> None:
    source = np.repeat([f"team {i}" for i in range(10)], 20)
    theirs = np.ones(len(source), bool)
    ours = theirs.copy()
    ours[:6] = False  # the first slice loses 6 of its 20 rows: p is 1/64, and ten times that among ten slices
    alone = only({"slice_fall": 0.11}, match(ours[:20], theirs[:20], source="team 0"), "source")
    one_of_ten = only({"slice_fall": 0.11}, match(ours, theirs, source=source), "source")
    assert alone.figure == one_of_ten.figure == pytest.approx(0.3)
    assert (alone.p, alone.passed) == (pytest.approx(1 / 64), False)
    assert (one_of_ten.p, one_of_ten.passed, one_of_ten.inconclusive) == (pytest.approx(10 / 64), True, True)
    # Two to the power of -8 is the first below 0.05 / 10: eight of twenty rows.
    assert "sees 0.4 or more in each" in one_of_ten.note


def test_holms_procedure_rejects_the_second_smallest_at_a_lower_price() -> None:
    adjusted = adjust_holm({"a": 0.01, "b": 0.04, "c": 0.02, "d": 0.9})
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.08, "c": 0.06, "d": 0.9})
    # Never less strict than Benjamini and Hochberg's, never stricter than Bonferroni's.
    p_values = dict(enumerate(np.random.default_rng(0).random(20) ** 3))
    ours = adjust_holm({str(name): p for name, p in p_values.items()})
    by = false_discovery_control(list(p_values.values()))
    assert all(by[name] <= ours[str(name)] <= min(1, 20 * p) for name, p in p_values.items())


def test_a_class_that_fell_for_certain_refuses() -> None:
    ours, theirs = np.ones(300, bool), hits(300, 0.9)
    ours[1::4] = False  # half of class b is taken for a
    gate = only({"class_fall": 0.1}, match(ours, theirs))
    assert not gate.passed and "b" in gate.note
    gate = only({"class_fall": 0.1}, match(theirs, theirs))
    assert gate.passed and not gate.inconclusive and gate.figure == 0


def match_classes(classes: int, rows: int, ours: dict[int, int], spread: int = 1) -> Match:
    """`classes` of `rows` rows each, all right for the champion; the candidate misses as many rows of a class as `ours`
    says, and takes them for the class `spread` further."""
    references = np.repeat(np.arange(classes), rows)
    predictions = references.copy()
    for label, missed in ours.items():
        predictions[label * rows : label * rows + missed] = (label + spread) % classes
    labels = [f"class {label}" for label in range(classes)]
    table = pa.table({"id": [str(i) for i in range(len(references))], "text": ["word"] * len(references)})
    objective = TextClassification()

    def outcome(predicted: np.ndarray) -> Any:
        scores = np.eye(classes)[predicted]
        return objective.compute_outcome(pa.table({"label": references}), {"scores": scores}, {"labels": labels})

    outcomes = {CANDIDATE: outcome(predictions), CHAMPION: outcome(references)}
    draws = metrics.resample(len(references), 100, 1)
    return Match(Rows("test", "digest", table), contender("2", labels), labels, outcomes, draws)


def test_seven_of_thirteen_rows_of_one_class_among_77_are_not_passed_in_silence() -> None:
    gate = only({"class_fall": 0.1}, match_classes(77, 13, {5: 7}))
    assert gate.inconclusive and gate.figure == pytest.approx(1 - 12 / 19)
    assert "class 5" in gate.note and "sees 0.73 or more in each" in gate.note
    gate = only({"class_fall": 0.1}, match_classes(77, 13, {5: 11}))
    assert not gate.passed and gate.figure == pytest.approx(0.73, abs=0.005)
    # With 40 rows in each class a fall of 0.16 is seen.
    assert "sees 0.16 or more in each" in only({"class_fall": 0.1}, match_classes(77, 40, {})).note


def test_rows_that_are_wrongly_taken_for_a_class_count_against_it() -> None:
    """Class 1 keeps all its rows and has 30 wrong ones besides, of a class so large that it hardly notices."""
    given = match_classes(3, 300, {0: 30})
    falls = find_class_falls(given)
    assert falls["class 1"].value == pytest.approx(1 - 600 / 630)
    assert falls["class 1"].p == falls["class 0"].p == pytest.approx(0.5**30)
    assert (falls["class 2"].value, falls["class 2"].p) == (0, 1)


def test_a_class_with_too_few_rows_for_any_verdict_is_named() -> None:
    gate = only({"class_fall": 0.1}, match_classes(77, 8, {3: 4}))
    assert gate.inconclusive and "too few rows to see any fall in class 0, class 1" in gate.note
    assert "and 72 more" in gate.note
    # Fewer than five rows are not looked at.
    assert find_class_falls(match_classes(10, 4, {})) == {}


@pytest.mark.parametrize(
    ("rows", "lost", "verdict", "note"),
    [
        # Beyond the limit of 0.1: significant, by chance, or on too few rows to be significant at all.
        (40, 20, (False, False), "beyond it: class 3, class 4; sees 0.16 or more in each"),
        (40, 8, (True, True), "beyond it, perhaps by chance: class 3; sees 0.16 or more in each"),
        (8, 4, (True, True), "beyond it, perhaps by chance: class 3, class 4; too few rows to see any fall in class 0"),
        # No fall beyond it was observed: the guard passes, and its note says what it could not have seen.
        (40, 2, (True, False), "largest: class 3; sees 0.16 or more in each"),
        (13, 0, (True, False), "; sees 0.73 or more in each"),
        (8, 0, (True, False), "; too few rows to see any fall in class 0"),
    ],
)
def test_a_guard_is_inconclusive_if_a_fall_beyond_its_limit_was_observed_and_says_what_it_sees(
    rows: int, lost: int, verdict: tuple[bool, bool], note: str
) -> None:
    gate = only({"class_fall": 0.1}, match_classes(77, rows, {3: lost}))
    assert (gate.passed, gate.inconclusive) == verdict
    assert note in gate.note
    # With `refuse` what is inconclusive does not pass; what observed nothing beyond the limit does.
    strict = only({"class_fall": 0.1}, match_classes(77, rows, {3: lost}), inconclusive="refuse")
    assert strict.passed == (verdict == (True, False))


def test_the_guard_of_calibration_says_what_it_sees() -> None:
    right = hits(300, 0.9)
    fine = only({"calibration": 0.05}, match(right, right, sure=0.88))
    assert re.search(r"^largest: calibration error; sees 0\.0\d+ or more$", fine.note)
    small = only({"calibration": 0.05}, match(right[:30], right[:30], sure=0.88))
    seen = [float(re.search(r"sees (\S+) or more", gate.note)[1]) for gate in (fine, small)]  # type: ignore[index]
    assert 0.05 <= seen[0] <= seen[1]
    # An error that grew from 0 to 0.3 cannot be told from chance by less than one resample in twenty.
    grown = only({"calibration": 0.05}, match(right, right, sure=0.6))
    assert grown.note.startswith("beyond it: calibration error; sees ")


def test_a_metric_that_is_no_share_is_judged_by_resamples() -> None:
    given = match_numbers(60, 60)
    falls = find_slice_falls(given, "length")
    [fall] = falls.values()
    assert abs(fall.value) < 0.01 and 0.1 < fall.p < 0.9
    assert 0 < fall.detectable(0.05) < 0.05
    assert fall.detectable(1e-4) == math.inf  # 500 resamples say nothing at that level
    [gate] = judge_falls("slices by length", falls, 0.0, given.rows.name, Promotion())
    assert gate.passed


def test_answers_that_are_much_too_sure_refuse() -> None:
    right = hits(300, 0.9)
    gate = only({"calibration": 0.05}, match(right, right, sure=0.6))
    assert not gate.passed and gate.figure == pytest.approx(0.3, abs=0.01)
    assert only({"calibration": 0.05}, match(right, right, sure=0.88)).passed


def test_a_guard_that_is_null_is_not_looked_at() -> None:
    off = Guards(slice_fall=None, class_fall=None, calibration=None)
    assert judge_guards(match(hits(40, 0.2), hits(40, 0.9)), Promotion(guards=off), ["length"]) == []


@pytest.mark.parametrize("classes", [2, 20])
def test_equal_versions_are_seldom_refused(classes: int) -> None:
    """Both are right on 80 of 100 rows, independently: whatever falls, falls by chance."""
    generator, refused = np.random.default_rng(classes), 0
    rows, labels = 25 * classes, [f"class {label}" for label in range(classes)]
    references = np.arange(rows) % classes
    table = pa.table({"id": [str(i) for i in range(rows)], "text": ["word"] * rows})

    def outcome() -> Any:
        others = (references + generator.integers(1, classes, rows)) % classes
        scores = np.eye(classes)[np.where(generator.random(rows) < 0.8, references, others)]
        tokens = pa.table({"label": references})
        return TextClassification().compute_outcome(tokens, {"scores": scores}, {"labels": labels})

    for _ in range(200):
        outcomes = {CANDIDATE: outcome(), CHAMPION: outcome()}
        given = Match(Rows("test", "digest", table), contender("2", labels), labels, outcomes, np.ones((rows, 2)))
        refused += not only({"class_fall": 0.0}, given).passed
    assert refused <= 18  # 10 expected at most at the level 0.05


def benchmarked(*figures: dict[str, Any]) -> dict[str, Any]:
    """A metrics.json with benchmark figures, of 200 documents unless they say otherwise."""
    described = {"task": "quiz", "metric": "acc", "rows": 200, "share": True}
    return {"benchmarks": {"figures": [{**described, **figure} for figure in figures], "left_out": []}}


def fall(lost: int, won: int, rows: int = 200) -> dict[str, Any]:
    return {"value": (lost - won) / rows, "p": 0.5, "error": 0.01, "lost": lost, "won": won}


@pytest.mark.parametrize(
    ("lost", "won", "passed", "inconclusive"),
    [(30, 2, False, False), (12, 6, True, True), (4, 2, True, False), (0, 20, True, False)],
)
def test_a_task_may_not_fall_significantly_by_more_than_the_limit(
    lost: int, won: int, passed: bool, inconclusive: bool
) -> None:
    settings = Promotion(guards=Guards(benchmark_fall=0.02))
    [gate] = judge_benchmarks(benchmarked({"fall": fall(lost, won)}), settings)
    assert (gate.passed, gate.inconclusive, gate.figure) == (passed, inconclusive, (lost - won) / 200)
    assert "quiz acc" in gate.note
    [strict] = judge_benchmarks(
        benchmarked({"fall": fall(lost, won)}), settings.model_copy(update={"inconclusive": "refuse"})
    )
    assert strict.passed == (passed and not inconclusive)


def test_the_tasks_share_the_level_and_only_metrics_from_0_to_1_are_judged() -> None:
    """Seven lost of seven has p = 0.008: significant alone, not as the best of ten."""
    alone, worse = {"fall": fall(7, 0)}, {"share": False, "fall": {**fall(0, 0), "value": 9.0, "lost": None}}
    others = [{"task": f"other {n}", "fall": fall(0, 0)} for n in range(9)]
    settings = Promotion(guards=Guards(benchmark_fall=0.02))
    [gate] = judge_benchmarks(benchmarked(alone, worse), settings)
    assert not gate.passed and gate.p == pytest.approx(0.5**7)
    [gate] = judge_benchmarks(benchmarked(alone, worse, *others), settings)
    assert gate.passed and gate.inconclusive and gate.p == pytest.approx(10 * 0.5**7)


def test_shares_that_are_not_right_or_wrong_are_judged_by_resamples() -> None:
    settings = Promotion(guards=Guards(benchmark_fall=0.02))
    measured = {"value": 0.05, "p": 0.001, "error": 0.01, "lost": None, "won": None}
    [gate] = judge_benchmarks(benchmarked({"metric": "f1", "fall": measured}), settings)
    assert not gate.passed and gate.p == 0.001
    [gate] = judge_benchmarks(benchmarked({"metric": "f1", "fall": {**measured, "p": 0.2}}), settings)
    assert gate.passed and gate.inconclusive


def test_a_limit_without_benchmarks_refuses_and_without_a_limit_there_is_no_gate() -> None:
    settings = Promotion(guards=Guards(benchmark_fall=0.02))
    for report in ({}, {"benchmarks": None}):
        [gate] = judge_benchmarks(report, settings)
        assert not gate.passed and "without a task" in gate.note
    assert judge_benchmarks(benchmarked({"fall": fall(90, 0)}), Promotion()) == []
