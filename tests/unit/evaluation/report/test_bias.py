"""What a reader is told of groups and flips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.evaluation.report.report import render
from hone.evaluation.report.report_bias import describe_all, describe_bias, list_gap_figures
from hone.registry.card import build_front_matter
from hone.registry.run_record import list_test_metrics
from tests.report_samples import HOSTILE, ROLES, build, figure, metrics
from tests.unit.evaluation.report.test_report import Page


def gap(value: float, reach: float, **more: Any) -> dict[str, Any]:
    ends = {"highest": {"name": "m", "value": 0.8}, "lowest": {"name": HOSTILE, "value": 0.8 - value}}
    return {**figure(value, reach), **ends, "class": "", "rate": "", "undefined": [], **more}


def groups(change: dict[str, float]) -> dict[str, Any]:
    def gaps(value: float) -> dict[str, Any]:
        return {
            "metric": gap(value, 0.05),
            "demographic_parity": gap(value, 0.1, **{"class": "returns", "rate": "selection rate"}),
            "equalized_odds": gap(value, 0.1, **{"class": "notes", "rate": "true positive rate", "undefined": ["m"]}),
        }

    def row(name: str, rows: int, value: float) -> dict[str, Any]:
        return {"name": name, "rows": rows, **{s: {"accuracy": figure(value, 0.05)} for s in ("model", "neighbours")}}

    entry = {
        "min_rows": 20,
        "left_out": [{"name": "(empty)", "rows": 3}],
        "judged": [row("m", 100, 0.8), row(HOSTILE, 70, 0.7)],
        "base": "neighbours",
        "gaps": {"model": gaps(0.1), "neighbours": gaps(0.05)},
        "changes": {name: {"value": 0.05, **change} for name in ("metric", "demographic_parity", "equalized_odds")},
        "labels": {
            "value": 0.12, "class": "returns", "highest": "m", "lowest": HOSTILE, "rows": 1_440, "answers": 0.2
        },
        "worst": HOSTILE,
        "best": "m",
    }  # fmt: skip
    return {"groups": {"gender": entry}}


WIDER, CHANCE = {"low": 0.01, "high": 0.09}, {"low": -0.04, "high": 0.14}
FLIPS = {
    "lexicon": "gender-en", "source": "Written for Hone.", "limits": ["English only."], "of": 180, "rows": 40,
    "changed": 3, "rate": figure(0.075, 0.05),
    "by_pair": [{"pair": ["he", "she"], "rows": 30, "changed": 2, "rate": figure(0.067, 0.05)}],
    "listed": [{"id": "r1", "text": HOSTILE, "swapped": "she", "before": "notes", "after": "returns"}] * 2,
}  # fmt: skip


def sample(**more: Any) -> dict[str, Any]:
    return {**metrics(ROLES, 180, 0.1), **more}


def test_the_report_has_groups_and_flips_with_all_their_figures(tmp_path: Path) -> None:
    change = {"metrics": {**groups(WIDER), "flips": FLIPS}}
    html = render("demo", build(tmp_path / "store", change=change), {})
    sections = Page(html).sections
    assert HOSTILE not in html
    for words in (
        "Groups by gender: accuracy is worst for",
        "70.0% (70 rows), and best for m: 80.0% (100 rows), a gap of 10.0 points (5.0–15.0).",
        "Demographic parity difference: 10.0 points (0.0–20.0), the selection rate of the class returns: 80.0% for m",
        "m has no row of it: the rate counts as 0 there, as in fairlearn.",
        "Fine-tuning widened the gap from 5.0 points (nearest neighbours by the base model) to 10.0 points; the change",
        "In the 1,440 training rows of these groups the share of the class returns differs by 12.0 points",
        "in the model's answers by 20.0 points.",
        "Not judged: 1 group with 3 rows in all",
    ):
        assert words in sections["groups"]
    # The true positive rate is undefined in a group: what fine-tuning did to its gap is not claimed.
    assert "widened the demographic parity difference" in sections["groups"]
    assert "widened the equalised odds" not in sections["groups"]
    for words in (
        "Swapping the words of gender-en changed 3 of 40 answers: 7.5% (2.5–12.5%).",
        "Of 180 test rows 140 contain none of these words",
        "he / she 30 2 6.7%",
        "2 rows with another answer 1 more are not shown",
        "as it is notes swapped returns",
        "English only.",
    ):
        assert words in sections["flips"]


def test_a_change_that_may_be_chance_is_called_so_and_a_narrower_gap_narrower() -> None:
    [_, change] = describe_bias(sample(**groups(CHANCE)))
    assert "by fine-tuning, which may be chance: the change is between −4.0 and +14.0." in change
    [_, change] = describe_bias(sample(**groups({"low": -0.09, "high": -0.01})))
    assert change.startswith("Fine-tuning narrowed the gap from 5.0 points")


def test_what_was_not_measured_is_stated_and_older_metrics_are_read(tmp_path: Path) -> None:
    for older in (sample(), sample(groups={}, flips=None)):
        assert describe_bias(older) == [] and list_gap_figures(older) == []
        assert describe_all(older) == [
            "Groups of rows were not compared (evaluation.groups).",
            "Words were not swapped to see whether answers change (evaluation.flips).",
        ]
    sections = Page(render("demo", build(tmp_path / "store"), {})).sections
    assert "groups" not in sections and "flips" not in sections
    few = groups(WIDER)
    few["groups"]["gender"] |= {"gaps": {}, "changes": {}, "labels": None, "judged": []}
    assert "no group has 20 test rows or more" in describe_bias(sample(**few))[0]
    none = {**FLIPS, "rows": 0, "changed": 0, "rate": None, "by_pair": [], "listed": []}
    assert describe_bias(sample(flips=none)) == ["Swapped words: none of 180 test rows contains a word of gender-en."]


def test_mlflow_gets_the_gaps_as_metrics() -> None:
    listed = list_test_metrics(sample(**groups(WIDER), flips=FLIPS))
    assert listed["test/group_gap_gender"] == pytest.approx(0.1)
    assert listed["test_neighbours/group_gap_gender"] == pytest.approx(0.05)
    assert listed["test/demographic_parity_gender"] == listed["test/equalized_odds_gender"] == pytest.approx(0.1)
    assert listed["test/flip_rate"] == pytest.approx(0.075)
    odd = groups(WIDER)
    odd["groups"]["a/b (%)"] = odd["groups"].pop("gender")
    assert "test/group_gap_a_b ___" in list_test_metrics(sample(**odd))


def test_the_model_index_has_the_main_metric_of_each_slice_and_group() -> None:
    from hone.models.locate import BaseModel

    base = BaseModel("org/base", Path("base"), "", "mit")
    data = build_front_matter("demo", base, "text-classification", False, sample(**groups(WIDER)))
    [index] = data.to_dict()["model-index"]
    by_part = {result["dataset"].get("config"): result for result in index["results"]}
    assert by_part[None]["metrics"][0]["name"] == "accuracy" and len(by_part[None]["metrics"]) == 2
    assert by_part["gender: m"]["metrics"] == [{"type": "accuracy", "value": 0.8, "name": "accuracy"}]
    assert by_part["gender: m"]["dataset"]["name"] == "demo, gender: m"
    assert "source: scipy" in by_part
    assert data.metrics == ["accuracy", "f1"]
