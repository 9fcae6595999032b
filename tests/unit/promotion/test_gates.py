"""The gates, on outcomes whose figures are known: better, not worse by more, and what may not fall."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks import audit
from hone.config.sections import Promotion
from hone.errors import ConfigError, ModelError
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.paired_rows import PairedRows
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.regression import Regression
from hone.objectives.text_classification import TextClassification
from hone.promotion import gates
from hone.promotion.contender import Contender, common_labels
from hone.promotion.gates import Gate
from hone.promotion.match import Match
from hone.promotion.noninferiority import exact_p_value
from hone.tracking.aliases import CANDIDATE, CHAMPION
from tests.unit.promotion.matches import LABELS, contender, hits, match, match_numbers


@pytest.mark.parametrize("test", ["bootstrap", "mcnemar"])
def test_a_better_candidate_passes_and_an_equal_or_worse_one_does_not(test: Any) -> None:
    settings = Promotion(test=test, resamples=500)
    assert gates.main_metric_gate(match(hits(200, 0.95), hits(200, 0.8)), settings).passed
    assert not gates.main_metric_gate(match(hits(200, 0.8), hits(200, 0.8)), settings).passed
    worse = gates.main_metric_gate(match(hits(200, 0.8), hits(200, 0.95)), settings)
    assert not worse.passed
    assert worse.figure == pytest.approx(-0.15)


def test_better_by_chance_is_not_better() -> None:
    gate = gates.main_metric_gate(match(hits(60, 0.85, 1), hits(60, 0.833, 2)), Promotion(resamples=500))
    assert gate.figure is not None and gate.figure > 0
    assert not gate.passed


def test_a_level_over_many_comparisons_asks_for_more_of_each() -> None:
    given = match(hits(200, 0.84), hits(200, 0.8))
    [alone, one_of_52] = [
        gates.main_metric_gate(given, Promotion(resamples=2000, test="mcnemar", level_over=over)) for over in (1, 52)
    ]
    assert alone.p == one_of_52.p and alone.p is not None and 0.001 < alone.p < 0.05
    assert (alone.passed, one_of_52.passed) == (True, False)
    assert one_of_52.bound == "p ≤ 0.000961538"
    with pytest.raises(ValueError, match=r"100 resamples cannot give a p-value of 0\.000961538 .*resamples to 1040 "):
        Promotion(resamples=100, level_over=52)


def test_the_difference_that_a_comparison_finds_in_four_of_five_cases() -> None:
    """Independent answers, right on 80 and, from that power on, on 80 + x of 100 rows."""
    generator, rows = np.random.default_rng(1), 300
    gate = gates.main_metric_gate(match(*(generator.random((2, rows)) < 0.8)), Promotion(resamples=500))
    difference = float(gate.note.partition("finds a difference of ")[2].partition(" ")[0])
    assert difference == pytest.approx((1.645 + 0.842) * np.sqrt(2 * 0.16 / rows), rel=0.1)
    found = [
        gates.main_metric_gate(
            match(generator.random(rows) < 0.8 + difference, generator.random(rows) < 0.8), Promotion(resamples=500)
        ).passed
        for _ in range(100)
    ]
    assert 72 <= sum(found) <= 90
    same = hits(rows, 0.8)
    assert "finds" not in gates.main_metric_gate(match(same, same), Promotion(resamples=500)).note


def test_a_margin_lets_pass_what_is_not_much_worse() -> None:
    # Two points worse, on the same rows.
    theirs = hits(400, 0.9)
    ours = theirs.copy()
    ours[np.flatnonzero(theirs)[:8]] = False
    assert not gates.main_metric_gate(match(ours, theirs), Promotion(resamples=500)).passed
    assert gates.main_metric_gate(match(ours, theirs), Promotion(resamples=500, margin=0.05)).passed
    assert not gates.main_metric_gate(match(ours, theirs), Promotion(resamples=500, margin=0.021)).passed


@pytest.mark.parametrize("rows", [10, 100, 298, 299])
def test_versions_that_never_differ_pass_a_margin_from_the_least_number_of_rows_on(rows: int) -> None:
    gate = gates.main_metric_gate(match(hits(rows, 0.9), hits(rows, 0.9)), Promotion(resamples=500, margin=0.01))
    assert gate.passed == (rows >= 299)
    assert ("even versions that never differ pass from 299 rows on" in gate.note) == (rows < 299)


def test_a_margin_of_another_metric_is_no_easier_than_that_of_right_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy passes for its exact test here, macro-F1 for the larger of the two."""
    few = match(hits(50, 0.9), hits(50, 0.9))
    exact, _ = gates.margin_p_value(few, 0.02, 0.05)
    assert exact > 0.3
    monkeypatch.setattr(TextClassification, "main_metric", "macro_f1")
    p, note = gates.margin_p_value(few, 0.02, 0.05)
    assert p == exact and "exact" in note
    theirs = hits(2000, 0.9)
    ours = theirs.copy()
    ours[np.flatnonzero(theirs)[::2][:150]] = False
    p, note = gates.margin_p_value(match(ours, theirs), 0.2, 0.05)
    assert "bootstrap" in note and p < 0.05


def test_a_margin_of_numbers_needs_rows_that_differ() -> None:
    few = match_numbers(30, 4)
    p, note = gates.margin_p_value(few, 0.1, 0.05)
    assert (p, note) == (1.0, "the answers differ in 4 rows; a margin can be judged from 10 on")
    assert gates.margin_p_value(match_numbers(30, 30), 0.1, 0.05)[0] < 0.05


def test_mcnemar_is_the_exact_binomial_test_of_the_rows_on_which_they_differ() -> None:
    ours, theirs = np.ones(40, bool), np.ones(40, bool)
    theirs[:9] = False
    ours[9] = False
    p, note = gates.mcnemar_p_value(match(ours, theirs))
    assert p == pytest.approx(11 / 1024)  # 9 or 10 heads of 10
    assert "9 rows right for the candidate alone, 1 for the champion alone" in note
    assert gates.mcnemar_p_value(match(ours, ours))[0] == 1.0


def test_mcnemar_refuses_a_metric_that_is_no_share_of_right_rows() -> None:
    given = match(hits(40, 0.9), hits(40, 0.8))
    broken = {name: np.ones_like(outcome.errors) for name, outcome in given.outcomes.items()}
    outcomes = {
        name: type(of)(of.statistics, of.predictions, of.references, broken[name])
        for name, of in given.outcomes.items()
    }
    with pytest.raises(ConfigError, match="to bootstrap"):
        gates.mcnemar_p_value(Match(given.rows, given.candidate, LABELS, outcomes, given.draws))


class Clock:
    """Time that passes only in a contender's answers."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def spent(self, seconds: float) -> Any:
        """An `answer` that takes so long."""

        def answer(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
            self.seconds += seconds
            return [{} for _ in rows]

        return answer


@pytest.mark.parametrize(("slower", "passes"), [(1.0, True), (1.9, True), (2.1, False)])
def test_a_candidate_that_answers_too_slowly_refuses(
    slower: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.seconds)
    contenders = {CANDIDATE: contender("2", LABELS), CHAMPION: contender("1", LABELS)}
    for name, seconds in ((CANDIDATE, 0.01 * slower), (CHAMPION, 0.01)):
        object.__setattr__(contenders[name], "answer", clock.spent(seconds))
    given = match(hits(60, 0.9), hits(60, 0.9)).rows
    gate = gates.latency_gate(contenders, given, 2.0, 0.05, 1)
    assert gate.passed is passes and gate.figure == pytest.approx(slower)


def test_a_few_slow_answers_do_not_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of 40 answers decide the p95: the ratio is above the bound, the lower end of its interval is not."""
    clock, calls = Clock(), itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: clock.seconds)
    contenders = {CANDIDATE: contender("2", LABELS), CHAMPION: contender("1", LABELS)}
    usual, slow = clock.spent(0.01), clock.spent(0.1)

    def answer(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = (slow if next(calls) in (10, 20, 30) else usual)(rows)
        return answers

    object.__setattr__(contenders[CANDIDATE], "answer", answer)
    object.__setattr__(contenders[CHAMPION], "answer", usual)
    gate = gates.latency_gate(contenders, match(hits(60, 0.9), hits(60, 0.9)).rows, 2.0, 0.05, 1)
    assert gate.figure is not None and gate.low is not None
    assert gate.low < 2.0 < gate.figure
    assert gate.passed


def test_weights_that_are_too_many_refuse() -> None:
    def of(inputs: int, dtype: torch.dtype = torch.float32) -> Contender:
        return replace(contender("1", LABELS), model=torch.nn.Linear(inputs, 4, bias=False, dtype=dtype))

    gate = gates.size_gate({CANDIDATE: of(17), CHAMPION: of(8)}, 2.0)
    assert not gate.passed and gate.figure == 17 / 8 and "272 bytes" in gate.note
    # Bytes, not numbers of weights: halves are half as large.
    assert gates.size_gate({CANDIDATE: of(17, torch.float16), CHAMPION: of(8)}, 2.0).passed


def test_labels_of_one_side_are_those_of_both_where_a_row_has_one() -> None:
    rows = pa.table({"label": ["c", "a"]})
    both = [contender("1", ["a", "b"]), contender("2", ["b", "d"])]
    assert common_labels(both, [rows]) == ["a", "b", "c", "d"]


def test_what_cannot_be_compared_is_refused() -> None:
    rows = pa.table({"label": ["a"]})
    several = [contender(n, labels, MultiLabelClassification()) for n, labels in (("1", ["a"]), ("2", ["a", "z"]))]
    with pytest.raises(ModelError, match=r"their labels differ \(z\)"):
        common_labels(several, [rows])
    with pytest.raises(ModelError, match="they cannot be compared"):
        common_labels([contender("1", ["a"]), contender("2", ["a"], Regression())], [rows])


def test_mcnemar_takes_no_margin() -> None:
    with pytest.raises(ValueError, match="mcnemar does not support a margin"):
        Promotion(test="mcnemar", margin=0.01)


def test_the_settings_of_promotion_move_no_key_of_the_line() -> None:
    from hone.config.file import parse_config
    from hone.pipeline.stages import STAGES

    tree = {"name": "a", "ingest": {"source": {"kind": "files", "paths": ["a.csv"]}}, "model": {"base": "b"}}
    one, other = (
        parse_config(tree | {"promotion": promotion}) for promotion in ({}, {"level": 0.01, "policy": "auto"})
    )
    assert one != other
    for stage in STAGES.values():
        assert stage.config(one) == stage.config(other)


def test_without_a_champion_the_baselines_are_to_be_beaten() -> None:
    compared = {"metric": "accuracy", "difference": 0.2, "low": 0.1, "high": 0.3}
    report = {"comparisons": {"majority": {**compared, "p": 0.001}, "neighbours": {**compared, "p": 0.2}}}
    found = gates.baseline_gates(report, Promotion())
    assert [gate.passed for gate in found] == [True, False]
    assert all("no champion yet" in gate.note for gate in found)
    assert [gate.passed for gate in gates.baseline_gates({"comparisons": {}}, Promotion())] == [True]


def compare_with_baseline(rows: int, won: int, lost: int, **changes: Any) -> dict[str, Any]:
    """The report of an evaluation with one baseline, where `won` and `lost` rows are right for one of the two alone."""
    draws = np.random.default_rng(0).multinomial(rows, (won / rows, lost / rows, 1 - (won + lost) / rows), 500)
    shares = np.concatenate([[won - lost], draws[:, 0] - draws[:, 1]]) / rows
    paired = asdict(PairedRows(rows, won, lost, won + lost, has_classes=True, is_share=True)) | changes
    comparison = compare_paired("accuracy", shares, np.zeros_like(shares), 0.95, rows=rows) | {"paired": paired}
    return {"confidence": 0.95, "comparisons": {"tf-idf": comparison}}


def judge_baseline(report: dict[str, Any], margin: float, level: float = 0.05) -> Gate:
    [gate] = gates.baseline_gates(report, Promotion(margin=margin, level=level))
    return gate


def test_few_first_candidates_pass_that_are_worse_than_a_baseline_by_the_margin() -> None:
    """They lose 2% of 100 rows and win 1%, at a margin of 0.01: the interval alone lets 8% pass."""

    @cache
    def p_value(rows: int, won: int, lost: int, margin: float) -> float:
        return 0.0 if judge_baseline(compare_with_baseline(rows, won, lost), margin).passed else 1.0

    assert audit.passing(p_value, 100, 0.01, 0.02, 0.01) <= 0.05


def test_a_first_candidate_that_is_not_much_worse_than_a_baseline_passes_by_the_exact_test() -> None:
    gate = judge_baseline(compare_with_baseline(400, 4, 6), 0.03)
    assert (gate.name, gate.bound, gate.passed) == ("accuracy: not worse than tf-idf by 0.03 or more", "p ≤ 0.05", True)
    assert gate.p is not None and gate.p == exact_p_value(400, 4, 6, 0.03)
    assert "4 rows right for the candidate alone, 6 for the baseline alone" in gate.note
    few = judge_baseline(compare_with_baseline(50, 0, 0), 0.01)
    assert not few.passed and "even versions that never differ pass from 299 rows on" in few.note


def test_a_margin_of_another_metric_than_right_rows_needs_the_interval_too() -> None:
    """The interval of macro-F1 must be above minus the margin, and that of right rows by the exact test."""
    report = compare_with_baseline(400, 4, 6, is_share=False)
    assert judge_baseline(report, 0.03).passed
    report["comparisons"]["tf-idf"]["low"] = -0.031
    assert not judge_baseline(report, 0.03).passed
    assert not judge_baseline(compare_with_baseline(50, 0, 0, is_share=False), 0.01).passed
    # Of numbers the interval alone, if enough rows differ and its tail is not larger than the level.
    numbers = {"is_share": False, "has_classes": False}
    assert judge_baseline(compare_with_baseline(400, 4, 6, **numbers), 0.03).passed
    few = judge_baseline(compare_with_baseline(400, 4, 5, **numbers), 0.03)
    assert not few.passed and "the answers differ in 9 rows" in few.note
    strict = judge_baseline(compare_with_baseline(400, 4, 6, **numbers), 0.03, level=0.01)
    assert not strict.passed and "raise evaluation.confidence" in strict.note


def test_an_evaluation_of_an_older_release_cannot_pass_a_margin() -> None:
    report = compare_with_baseline(400, 4, 6)
    del report["comparisons"]["tf-idf"]["paired"]
    gate = judge_baseline(report, 0.03)
    assert not gate.passed and "run it again" in gate.note
