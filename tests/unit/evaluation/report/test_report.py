"""What a reader of the report sees."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.evaluation.report import charts, report_data, report_results
from hone.evaluation.report.report import Origin, render
from hone.evaluation.report.report_champion import Champion, Registered
from hone.objectives.text_classification import TextClassification
from hone.store.artifact import Artifact
from tests.report_samples import EXCESS, HOSTILE, build, champion, check, figure, settings_checks


class Page(HTMLParser):
    """The words of a page by section (the id of the section they stand in), its tags and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {"": ""}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._at, self._silent, self._open = "", False, []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)
        self._silent = tag in ("style", "script")
        if tag == "section":
            self._at = dict(attrs)["id"] or ""
            self.sections[self._at] = ""

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if tag == "section":
            self._at = ""

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.sections[self._at] = " ".join((self.sections[self._at] + " " + data).split())


def page(tmp_path: Path, links: dict[str, str] | None = None, **sample: Any) -> Page:
    return Page(render("demo", build(tmp_path / "store", **sample), links or {}))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A run of six classes that went well."""
    return build(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def html(artifacts: dict[str, Artifact]) -> str:
    return render("demo", artifacts, {})


@pytest.fixture(scope="module")
def plain(html: str) -> Page:
    """The page of a run that went well."""
    return Page(html)


def paired(difference: float, half: float, p: float) -> dict[str, Any]:
    return {"metric": "accuracy", "difference": difference, "low": difference - half, "high": difference + half, "p": p}


@pytest.mark.parametrize(
    ("neighbours", "said"),
    [
        (paired(0.10, 0.04, 0.001), "Yes."),
        (paired(0.02, 0.04, 0.4), "Not proven."),
        (paired(0.10, 0.04, 0.2), "Not proven."),
        (paired(-0.10, 0.04, 1.0), "No."),
    ],
)
def test_says_first_whether_fine_tuning_was_worth_it(tmp_path: Path, neighbours: dict[str, Any], said: str) -> None:
    comparisons = {"majority": paired(0.5, 0.05, 0.001), "neighbours": neighbours}
    assert f"worth it? {said}" in page(tmp_path, change={"metrics": {"comparisons": comparisons}}).sections["verdict"]


def test_a_model_that_is_as_good_as_its_baseline_is_not_worse(tmp_path: Path) -> None:
    change = {"comparisons": {"neighbours": paired(0.0, 0.0, 1.0)}, "worst": []}
    made = build(tmp_path, change={"metrics": change})
    verdict = Page(render("demo", made, {}, origin=Origin(model="demo"))).sections["verdict"]
    assert "As good as the baseline, nearest neighbours" in verdict and "worse" not in verdict
    assert "Next: add test rows for narrower intervals. hone promote demo" in verdict


def test_a_verdict_without_baselines_claims_nothing(tmp_path: Path) -> None:
    found = page(tmp_path, change={"metrics": {"comparisons": {}}})
    assert "Nothing to compare with." in found.sections["verdict"]
    assert "gained" not in found.sections["metrics"]


def test_the_verdict_has_the_figure_its_interval_and_the_distance_to_the_better_baseline(tmp_path: Path) -> None:
    systems = {
        "model": {"accuracy": figure(0.694, 0.05)},
        "majority": {"accuracy": figure(0.25, 0.02)},
        "neighbours": {"accuracy": figure(0.593, 0.05)},
    }
    comparisons = {"majority": paired(0.444, 0.05, 0.0002), "neighbours": paired(0.101, 0.045, 0.0004)}
    change = {"metrics": {"systems": systems, "comparisons": comparisons, "rows": 1_384}}
    verdict = page(tmp_path, change=change).sections["verdict"]
    assert "69.4% accuracy 64.4–74.4% at 95% confidence, 1,384 test rows" in verdict
    assert "10.1 points better than the best of 2 baselines, nearest neighbours (59.3%)" in verdict
    assert "between +5.6 and +14.6, p < 0.001" in verdict


def test_a_figure_that_is_no_share_is_a_number_and_less_of_it_can_be_better(tmp_path: Path) -> None:
    perplexity = {"value": 12.34, "low": 11.9, "high": 12.8}
    change = {
        "main_metric": "perplexity",
        "measures": {"perplexity": {"title": "Perplexity", "lower": True, "share": False}},
        "systems": {
            "model": {"perplexity": perplexity},
            "untuned": {"perplexity": {"value": 90, "low": 85, "high": 96}},
        },
        "comparisons": {
            "untuned": {"metric": "perplexity", "difference": 77.66, "low": 73.2, "high": 83.1, "p": 0.001}
        },
        "per_class": {},
        "confusion": None,
        "calibration": None,
        "slices": {},
    }
    found = page(tmp_path, change={"metrics": change}).sections
    assert "Yes. 12.34 perplexity 11.9–12.8 at 95% confidence" in found["verdict"]
    assert "77.66 better than the baseline, base model, untuned (90)" in found["verdict"]
    assert "The baselines fine-tune nothing: the base model as it was." in found["verdict"]
    assert "with the largest errors" in found["errors"] and "taken for" not in found["errors"]
    assert "Perplexity lower is better" in found["metrics"]
    assert "%" not in found["metrics"].replace("95%", "")


def test_a_large_difference_that_is_no_share_is_a_grouped_number(tmp_path: Path) -> None:
    systems = {"model": {"perplexity": {"value": 12.3}}, "untuned": {"perplexity": {"value": 90_123.4}}}
    comparison = {"metric": "perplexity", "difference": 90_111.1, "low": 84_988.2, "high": 95_988.1, "p": 0.0001}
    change = {
        "main_metric": "perplexity",
        "measures": {"perplexity": {"title": "Perplexity", "lower": True, "share": False}},
        "systems": systems,
        "comparisons": {"untuned": comparison},
        "per_class": {},
        "confusion": None,
        "calibration": None,
        "slices": {},
    }
    found = page(tmp_path, change={"metrics": change}).sections
    assert "90,111 better than the baseline" in found["verdict"]
    assert "between +84,988 and +95,988, p < 0.001" in found["verdict"]
    assert "+90,111 +84,988 to +95,988, p < 0.001" in found["metrics"]


def test_rows_with_nothing_to_learn_from_are_told(tmp_path: Path) -> None:
    found = page(tmp_path, change={"tokenize": {"dropped": {"train": {"every label is masked": 3}}}})
    assert "3 rows of train were left out: every label is masked." in found.sections["tokens"]


def test_the_funnel_accounts_for_every_row_with_reasons_and_examples(plain: Page) -> None:
    rows = plain.sections["rows"]
    assert "1,800 of 38,112 rows are used" in rows
    assert "Ingest 38,100 of 38,112 rows stay 38,100 −12" in rows
    assert "near-duplicate 2,542" in rows and "repeats numpy/core.py:410, similarity 0.91" in rows
    assert "not valid UTF-8 9" in rows and "docs.csv:2" in rows and "docs.csv:3" not in rows
    assert "training 1,440 validation 180 test 180" in rows


def test_the_funnel_says_what_ingest_left_out_and_converted(tmp_path: Path) -> None:
    facts = {"skipped": {"answer is reject": 7}, "notes": {"texts whose span offsets count utf-16, converted": 41}}
    rows = page(tmp_path, change={"ingest": facts}).sections["rows"]
    assert "texts whose span offsets count utf-16, converted 41" in rows
    assert "left out before: answer is reject 7" in rows


def test_the_funnel_says_what_stays_although_it_has_flaws_and_what_a_step_is_to_be_checked_for(html: str) -> None:
    rows = Page(html).sections["rows"]
    assert "found in validation and test rows, which stay: shorter than 20 characters 1,204, not English 3" in rows
    assert html.count("which stay:") == 1  # of the only step with flagged rows
    assert f"the largest cluster has 37 rows {EXCESS}" in rows
    assert "the largest group of similar rows has 24 of 1,620 rows" in rows


def test_bars_of_the_funnel_have_the_rows_share_of_all_that_was_read(html: str) -> None:
    kept = [float(width) for width in re.findall(r'class="kept" width="([\d.]+)%"', html)]
    assert kept == pytest.approx([100 * n / 38_112 for n in (38_100, 38_100, 29_433, 13_020, 12_877, 1_800)], abs=1e-3)


def test_a_failed_check_comes_first_with_the_rows_that_failed(tmp_path: Path) -> None:
    validation = page(tmp_path, failing=True).sections["validation"]
    assert validation.startswith("Validation 1 of 46 checks failed. 2 rows were quarantined.")
    assert validation.index("text values do not match regex of your suite") < validation.index("Enough rows")
    assert "scipy/stats.py:12 · See also" in validation


def test_quarantined_rows_are_a_step_of_the_funnel(tmp_path: Path, plain: Page) -> None:
    rows = page(tmp_path, failing=True).sections["rows"]
    reason = "fails “text values do not match regex” 2"
    assert f"Quarantine 1,798 of 1,800 rows stay 1,798 −2 {reason}" in rows
    assert "Quarantine" not in plain.sections["rows"]
    assert plain.sections["validation"].startswith("Validation All 45 checks hold. Check")


def test_the_checks_that_can_matter_are_in_plain_words_and_come_first(plain: Page) -> None:
    titles = [
        "Enough rows holds 1,440 at least 20 holds 180 at least 5 holds 180 at least 5",
        "No row repeats a row of an earlier split holds none of 180 rows holds none of 180 rows",
        "Share of the most frequent label expected: at most 95% holds 18.4%",
        "Rows of each label expected: at least 2 holds every label",
        "Length of the median row, in tokens expected: 1 to 512 holds 24",
        "33 checks of the columns hold",
        "id is there",
    ]
    places = [plain.sections["validation"].index(title) for title in titles]
    assert places == sorted(places)
    assert "hone_" not in plain.sections["validation"]


def test_a_failed_check_of_a_column_is_not_folded(tmp_path: Path) -> None:
    expectations = settings_checks("train", 40)
    empty = next(entry for entry in expectations if entry["expectation"].endswith("match_regex"))
    empty |= {"success": False, "observed": "3 of 40 rows fail: ' '", "unexpected": 3}
    html = render("demo", build(tmp_path, change={"validate": {"expectations": expectations}}), {})
    validation = Page(html).sections["validation"]
    assert "1 of 15 checks failed." in validation
    assert validation.index("text values match regex") < validation.index("Enough rows")
    assert "10 checks of the columns hold" in validation
    folded = html[html.index("10 checks of the columns") : html.index('id="tokens"')]
    assert "values match regex" not in folded


def test_the_checks_of_the_users_suite_are_never_folded(tmp_path: Path) -> None:
    own = check("test", "column_values_to_not_be_null", "source", "0 of 40 rows fail", "to not be null")
    expectations = [*settings_checks("train", 40), *settings_checks("test", 40), own]
    validation = page(tmp_path, change={"validate": {"expectations": expectations}}).sections["validation"]
    assert "source values not null of your suite holds all of 40 rows 22 checks of the columns hold" in validation


def test_text_from_the_data_is_shown_and_never_markup(tmp_path: Path) -> None:
    html = render(HOSTILE, build(tmp_path, labels=[HOSTILE, "b"], failing=True), {HOSTILE: "https://x/?a=\"'><script>"})
    found = Page(html)
    assert HOSTILE in found.sections["errors"] and HOSTILE in found.sections["classes"]
    assert "not English 513 " + HOSTILE in found.sections["rows"]
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert not [attrs for tag, attrs in found.tags if tag == "img" or any(name.startswith("on") for name in attrs)]


def test_nothing_is_fetched_from_anywhere(artifacts: dict[str, Artifact]) -> None:
    html = render("demo", artifacts, {"MLflow run": "http://127.0.0.1:5000/#/runs/1"})
    found = Page(html)
    fetched = [attrs["src"] for _, attrs in found.tags if "src" in attrs]
    fetched += [attrs["href"] for tag, attrs in found.tags if tag == "link"]
    assert fetched == ["data:,"]
    policy = next(attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"@import|url\(", html)


def test_links_lead_where_they_say_and_no_link_is_a_script(artifacts: dict[str, Artifact]) -> None:
    links = {"MLflow run": "http://h:5000/#/r/1", "Data Docs": "/data/index.html", "Odd": "javascript:alert(1)"}
    found = Page(render("demo", artifacts, links))
    assert [attrs["href"] for tag, attrs in found.tags if tag == "a" and attrs.get("rel")] == list(links.values())[:2]
    assert "Odd: javascript:alert(1)" in found.sections[""]


def test_without_optional_parts_there_are_no_empty_boxes(tmp_path: Path) -> None:
    none = {"per_class": {}, "confusion": None, "calibration": None, "slices": {}, "worst": [], "merged": None}
    speed = {"latency_ms": {}, "rows_per_second": None, "parts": {}, "slowest": ""}
    found = page(tmp_path, steps=20, epochs=0, change={"metrics": none, "speed": speed})
    gone = {"classes", "confusion", "calibration", "slices", "errors"}
    assert not gone & set(found.sections)
    targets = [attrs["href"] for tag, attrs in found.tags if tag == "a" and attrs["href"].startswith("#")]
    assert {target[1:] for target in targets} == set(found.sections) - {""}
    assert "Adapter" not in found.sections["training"] and "merged" not in found.sections["metrics"]
    assert not [attrs for tag, attrs in found.tags if tag == "circle" and "point" in attrs.get("class", "")]


def test_an_adapter_is_weighed_and_its_merge_is_told(tmp_path: Path) -> None:
    found = page(tmp_path, adapter=True)
    assert "Adapter 90 kB model 90 kB" in found.sections["training"]
    assert "no score differs by more than 2.4e−7" in found.sections["metrics"]


def test_the_loss_curve_has_its_steps_its_validation_points_and_its_best_one(plain: Page) -> None:
    points = [attrs for tag, attrs in plain.tags if tag == "circle" and "point" in attrs.get("class", "").split()]
    assert [float(point["cx"].rstrip("%")) for point in points] == pytest.approx([33.33, 66.67, 100])
    assert [point["class"] for point in points] == ["point", "point", "point best"]
    readout = next(json.loads(attrs["data-readout"]) for _, attrs in plain.tags if "data-readout" in attrs)
    assert len(readout) == 135 and readout[-1][0] == 100 and readout[-1][1].startswith("step 135: training loss")


@pytest.mark.parametrize(
    ("losses", "kept", "sentence"),
    [
        (
            {10: 0.5, 20: 0.25, 30: 0.375},
            30,
            "lowest, 0.25, at step 20; the weights are those of step 30 (loss 0.375).",
        ),
        ({10: 0.5, 20: 0.25, 30: 0.375}, 20, "lowest, 0.25, at step 20."),
        ({10: 0.5, 20: 0.25}, 20, "lowest, 0.25, at step 20."),
        ({10: 0.25, 20: 0.25}, 20, "lowest, 0.25, at step 10; the weights are those of step 20 (loss 0.25)."),
        ({}, 30, ""),
    ],
)
def test_the_lowest_validation_loss_is_that_of_the_history(losses: dict[int, float], kept: int, sentence: str) -> None:
    history = [{"step": step, "loss": 1.0} for step in (10, 20, 30)]
    history += [{"step": step, "valid_loss": loss} for step, loss in losses.items()]
    facts = {"best_step": kept, "valid_loss": losses.get(kept), "steps": 30, "seconds": 1.0}
    told = report_data.training(facts, history, {})["validation"]
    assert told == (f"The validation loss was {sentence}" if sentence else "")


@pytest.mark.parametrize(("kept", "other"), [(20, ""), (30, "; the weights are those of step 30 (loss 0.375)")])
def test_the_metric_that_chose_the_weights_is_named(kept: int, other: str) -> None:
    history = [{"step": step, "valid_loss": loss} for step, loss in ((10, 0.5), (20, 0.25), (30, 0.375))]
    facts = {"best_step": kept, "valid_loss": 0.375, "steps": 30, "seconds": 1.0, "stopped": "early", "valid_rows": 180}
    facts["selected_by"] = {"metric": "accuracy", "title": "Accuracy", "lower": False, "share": True, "value": 0.717}
    view = report_data.training(facts, history, {})
    best = ", where validation accuracy was best: 71.7%."
    assert view["validation"] == f"The validation loss was lowest, 0.25, at step 20{other}{best}"
    assert ("Steps", "30", "early: accuracy no longer improved") in view["figures"]
    assert ("Validation accuracy", "71.7%", "180 rows") in view["figures"]


def test_the_figure_of_the_validation_rows_stands_beside_that_of_the_test_rows(tmp_path: Path) -> None:
    trained = {"valid": {"accuracy": 0.702}, "valid_rows": 180}
    assert (
        "On the 180 validation rows accuracy was 70.2%."
        in page(tmp_path, change={"train": trained}).sections["verdict"]
    )


def test_the_heading_of_the_training_says_how_it_ended_and_that_the_loss_did_not_fall(tmp_path: Path) -> None:
    course = "The training loss rose (from 1.045 to 1.945, means of 10 steps): the learning rate 0.1 may be too high."
    change = {"train": {"stopped": "early", "course": course, "best_step": 270}}
    made = build(tmp_path, change=change)
    html = render("demo", made, {})
    lines = map(json.loads, (made["train"].path / "history.jsonl").read_text("utf8").splitlines())
    losses = {line["step"]: line["valid_loss"] for line in lines if "valid_loss" in line}
    lowest = min(losses, key=lambda step: losses[step])
    said = headings(html)["Training"]
    assert said.startswith(f"{made['train'].facts()['steps']} steps in 88.3 s, stopped early.")
    assert (
        f"was lowest, {losses[lowest]:.4f}, at step {lowest}; the weights are those of step 270 (loss 0.753)." in said
    )
    assert said.endswith(course)
    assert "step 270, whose weights were kept" in Page(html).sections["training"]
    assert "course" not in headings(render("demo", build(tmp_path / "fell"), {}))["Training"]


def test_the_modules_that_were_trained_are_named(tmp_path: Path) -> None:
    names = ["bert.encoder.layer.5", "bert.pooler", "classifier"]
    section = page(tmp_path / "few", change={"train": {"trained": names}}).sections["training"]
    assert "Trained were bert.encoder.layer.5, bert.pooler, classifier; all other weights" in section
    many = page(tmp_path / "many", change={"train": {"trained": [f"part_{n}" for n in range(10)]}})
    assert "part_7 and 2 more; all other" in many.sections["training"]
    # A whole model that was trained, and trainings of earlier releases.
    assert "Trained were" not in page(tmp_path / "all", change={"train": {"trained": []}}).sections["training"]


@pytest.mark.parametrize(("share", "shown"), [(0.42, "FLOPs used 42.0% of the device"), (1.236, ""), (None, "")])
def test_more_flops_than_the_device_has_are_left_out(share: float | None, shown: str, tmp_path: Path) -> None:
    """The peak was measured on a busy machine; trainings of earlier releases have stored such a share."""
    section = page(tmp_path, change={"train": {"mfu": share}}).sections["training"]
    assert shown in section and ("FLOPs used" in section) == bool(shown)


def test_a_difference_without_width_has_no_interval(tmp_path: Path) -> None:
    comparisons = {"majority": paired(0.0, 0.0, 1.0), "neighbours": paired(-0.1, 0.0, 1.0)}
    html = render("demo", build(tmp_path, change={"metrics": {"comparisons": comparisons}}), {})
    sections = Page(html).sections
    assert "no row differs" in sections["metrics"] and "0.0 to" not in sections["metrics"]
    assert "difference lies between" not in sections["verdict"]
    tie = {"comparisons": {"majority": paired(0.0, 0.0, 1.0)}}
    assert "No row differs." in page(tmp_path / "tie", change={"metrics": tie}).sections["verdict"]


def test_a_long_history_is_thinned_and_stays_small(tmp_path: Path) -> None:
    html = render("demo", build(tmp_path, steps=20_000), {})
    assert len(html) < 400_000
    assert "20,000 steps" in Page(html).sections["training"]


def test_few_classes_are_a_table_of_counts_and_many_a_picture_with_the_worst_pairs(tmp_path: Path, plain: Page) -> None:
    assert sum(tag == "td" and attrs.get("class", "").split()[:1] == ["right"] for tag, attrs in plain.tags) == 6
    many = page(tmp_path, labels=[f"class_{n}" for n in range(77)], test_rows=3_080)
    assert sum(tag == "rect" and attrs.get("class") == "right" for tag, attrs in many.tags) == 77
    assert "77 × 77 classes" in many.sections["confusion"]
    assert re.search(r"The 10 most confused of \d+ pairs", many.sections["confusion"])


def test_classes_stand_weakest_first(html: str) -> None:
    table = html[html.index('id="classes"') : html.index('id="confusion"')]
    f1 = [float(value) for value in re.findall(r'<td data-sort="([\d.]+)">', table)][2::3]
    assert f1 == sorted(f1) and len(f1) == 6


def test_a_class_without_test_rows_is_neither_weakest_nor_strongest(tmp_path: Path) -> None:
    sure, unknown = figure(0.8, 0.1), {"value": 0.0, "low": 0.0, "high": 1.0}
    per_class = {
        "seen": {"precision": sure, "recall": sure, "f1": sure, "support": 9},
        "unseen": {"precision": unknown, "recall": unknown, "f1": unknown, "support": 0},
    }
    classes = page(tmp_path, change={"metrics": {"per_class": per_class}}).sections["classes"]
    assert "Strongest is seen (F1 80.0%), weakest seen (80.0%)" in classes
    assert classes.endswith("unseen – 0 – – –")


@pytest.mark.parametrize(
    ("device", "shown"), [("cpu, 1 threads", "cpu, 1 thread"), ("cpu, 11 threads", "cpu, 11 threads")]
)
def test_one_thread_is_not_many(tmp_path: Path, device: str, shown: str) -> None:
    assert f"Device {shown} bf16" in page(tmp_path, change={"train": {"device": device}}).sections["training"]


def test_the_head_says_who_made_it_of_what(artifacts: dict[str, Artifact]) -> None:
    origin = Origin("ada", "0123456789abcdef0123-dirty", "0.1.0", "apache-2.0", "demo")
    head = Page(render("demo", artifacts, {}, origin=origin)).sections[""]
    assert "Rows from installed-docs: scipy, pandas, numpy and 2 more" in head
    assert "Licence of the base model apache-2.0 Registered by ada" in head
    assert "Commit 0123456789ab, with uncommitted changes Hone 0.1.0" in head


def test_what_is_not_known_of_a_run_is_left_out(plain: Page) -> None:
    assert "Rows from" in plain.sections[""]
    assert not any(title in plain.sections[""] for title in ("Licence of", "Registered by", "Commit"))
    assert "Next:" not in plain.sections["verdict"]


def test_the_verdict_ends_with_the_command_that_promotes(tmp_path: Path, artifacts: dict[str, Artifact]) -> None:
    verdict = Page(render("demo", artifacts, {}, origin=Origin(model="my model"))).sections["verdict"]
    assert "Next: hone promote 'my model' compares the model with the champion on new predictions" in verdict
    worse = render("demo", build(tmp_path, gain=-0.1), {}, origin=Origin(model="demo"))
    assert "Next: read the worst errors and the dropped rows" in Page(worse).sections["verdict"]


def test_the_head_names_the_version_and_links_to_it(artifacts: dict[str, Artifact]) -> None:
    address = "http://h:5000/#/models/a/versions/3"
    linked = Page(render("demo", artifacts, {}, registered=Registered("a <b>", "3", "candidate", address)))
    assert "Model version a <b> version 3 , alias candidate" in linked.sections[""]
    assert address in [attrs["href"] for tag, attrs in linked.tags if tag == "a"]
    bare = Page(render("demo", artifacts, {}, registered=Registered("a", "3")))
    assert "Model version a version 3 Rows from" in bare.sections[""]
    assert not [attrs for tag, attrs in bare.tags if tag == "a" and attrs.get("rel")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (None, "demo has no champion yet to compare with."),
        ({"version": "3"}, "This version is the champion: there is no other to compare with."),
        ({"metrics": None}, "The champion, version 2, has no test results in MLflow to compare with."),
        ({"same_rows": False}, "The champion, version 2, was tested on other rows: its figures cannot be compared"),
        ({"metrics": {"systems": {"model": {"r2": figure(0.5, 0.1)}}}}, "was measured with other metrics"),
    ],
)
def test_why_there_is_no_comparison_with_the_champion(
    tmp_path: Path, artifacts: dict[str, Artifact], change: dict[str, Any] | None, sentence: str
) -> None:
    rival = None if change is None else replace(champion(tmp_path, artifacts), **change)
    found = Page(render("demo", artifacts, {}, registered=Registered("demo", "3", champion=rival))).sections
    assert sentence in found["verdict"]
    assert "champion" not in found


def beside_champion(artifacts: dict[str, Artifact], rival: Champion) -> str:
    """The section on the champion."""
    registered = Registered("demo", "3", champion=rival)
    html = render("demo", artifacts, {}, objective=TextClassification(), registered=registered)
    return Page(html).sections["champion"]


def test_the_figures_of_the_champion_are_beside_those_of_the_version(
    tmp_path: Path, artifacts: dict[str, Artifact]
) -> None:
    rival = champion(tmp_path, artifacts)
    assert rival.metrics
    ours = json.loads((artifacts["evaluate"].path / "metrics.json").read_text("utf8"))["systems"]["model"]["accuracy"]
    theirs = rival.metrics["systems"]["model"]["accuracy"]
    shown, beside = (f"{100 * value['value']:.1f}%" for value in (ours, theirs))
    found = beside_champion(artifacts, rival)
    assert f"Champion {shown} accuracy, 3.2 points better than the champion, version 2 ({beside})" in found
    assert "Champion, version 2 Difference Accuracy " + shown in found
    assert f"{beside} {100 * theirs['low']:.1f}–{100 * theirs['high']:.1f}% +3.2 points Macro-F1" in found
    assert "Calibration error lower is better 5.8% 3.8–7.8% 5.8% 3.8–7.8% 0.0 points" in found.replace("+0.0", "0.0")


def test_a_lower_figure_is_better_where_less_is_better(tmp_path: Path) -> None:
    measures = {"loss": {"title": "Loss", "lower": True, "share": False}}
    systems = {"model": {"loss": {"value": 1.5, "low": 1.4, "high": 1.6}}}
    none = {"per_class": {}, "confusion": None, "calibration": None, "slices": {}, "comparisons": {}}
    change = {"main_metric": "loss", "measures": measures, "systems": systems, **none}
    made = build(tmp_path / "store", change={"metrics": change})
    rival = Champion("2", "", {"systems": {"model": {"loss": {"value": 2.0}}}}, True)
    found = beside_champion(made, rival)
    assert "1.5 loss, 0.5 better than the champion, version 2 (2)" in found
    assert "1.5 1.4–1.6 2 −0.5" in found
    assert "before" not in found


def test_the_answers_that_changed_are_counted_and_shown(tmp_path: Path, artifacts: dict[str, Artifact]) -> None:
    found = beside_champion(artifacts, champion(tmp_path, artifacts))
    wrong, right = found[found.index("Right before") :].split("Wrong before, right now : 2 rows")
    assert wrong.startswith("Right before, wrong now : 2 rows")
    assert "expected raises before raises now returns Passage 3 of the documentation, on raises. scipy/3.py:3" in wrong
    assert f"expected attributes before {HOSTILE} now attributes Passage 0 of" in right
    passages = [re.findall(r"Passage (\d+)", part) for part in (wrong, right)]
    assert [sorted(part) for part in passages] == [["3", "7"], ["0", "2"]]


def test_at_most_ten_changed_answers_are_shown_those_with_the_largest_errors_first(
    tmp_path: Path, artifacts: dict[str, Artifact]
) -> None:
    rival = champion(tmp_path, artifacts)
    assert rival.answers
    table = pq.read_table(rival.answers)
    errors = pa.array([1 + int(row.partition("/")[2].partition(".")[0]) for row in table["id"].to_pylist()])
    pq.write_table(table.set_column(3, "error", errors.cast(pa.float64())), rival.answers)
    found = beside_champion(artifacts, rival)
    assert "Right before, wrong now: 0 rows." in found
    assert "Wrong before, right now : 30 rows the 10 with the largest errors are shown" in found
    right = [n for n in range(39, -1, -1) if n % 4 != 3]
    assert [int(number) for number in re.findall(r"Passage (\d+)", found)] == right[:10]


def test_answers_that_are_neither_right_nor_wrong_or_not_stored_are_left_out(
    tmp_path: Path, artifacts: dict[str, Artifact]
) -> None:
    made = build(tmp_path / "store")
    rival = champion(tmp_path, made)
    assert rival.answers
    assert "wrong now" not in beside_champion(made, replace(rival, answers=None))
    for path in (rival.answers, made["evaluate"].path / "predictions.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.set_column(3, "error", pa.array([0.7] * len(table))), path)
    found = beside_champion(made, rival)
    assert "wrong now" not in found and "3.2 points better" in found


def test_right_answers_are_shown_with_their_texts(artifacts: dict[str, Artifact]) -> None:
    found = Page(render("demo", artifacts, {}, objective=TextClassification())).sections["answers"]
    assert found.startswith("Right answers 5 of the 30 test rows that the model gets right, the surest first.")
    surest = "parameters 98% sure Passage 38 of the documentation, on parameters. scipy/38.py:38"
    assert surest in found
    assert len(re.findall(r"Passage \d+", found)) == 5
    assert len(set(re.findall(r"on (\w+)\.", found))) == 5
    assert not re.search(r"Passage (3|7|11|39) ", found)


def test_where_no_answer_is_right_the_closest_are_shown(tmp_path: Path) -> None:
    made = build(tmp_path)
    path = made["evaluate"].path / "predictions.parquet"
    table = pq.read_table(path).select(["id", "reference", "prediction", "error"])
    errors = pa.array([0.5 + abs(n - 7) for n in range(len(table))], pa.float64())
    pq.write_table(table.set_column(3, "error", errors), path)
    found = Page(render("demo", made, {}, objective=TextClassification())).sections["answers"]
    assert found.startswith("Best answers No test row is without an error. These have the smallest.")
    assert "notes predicted parameters Passage 7 of" in found


def test_an_earlier_run_without_predictions_has_no_right_answers(tmp_path: Path) -> None:
    made = build(tmp_path)
    (made["evaluate"].path / "predictions.parquet").unlink()
    assert "answers" not in Page(render("demo", made, {}, objective=TextClassification())).sections


def test_a_scale_of_small_shares_has_labels_that_differ() -> None:
    assert [label for _, label in charts.shares([0.003]).ticks] == ["0.0%", "0.1%", "0.2%", "0.3%"]
    assert [label for _, label in charts.shares([1.0]).ticks] == ["0%", "20%", "40%", "60%", "80%", "100%"]


def test_the_scale_of_differences_has_signs_but_for_zero(tmp_path: Path) -> None:
    metrics = json.loads((build(tmp_path)["evaluate"].path / "metrics.json").read_text("utf8"))
    metrics["comparisons"] = {"neighbours": paired(0.5, 0.4, 0.01)}
    shares = report_results.forest(report_results.measured(metrics))["scale"].ticks
    assert [label for _, label in shares] == ["0", "+20", "+40", "+60", "+80", "+100"]
    metrics["measures"]["accuracy"]["share"] = False
    numbers = report_results.forest(report_results.measured(metrics))["scale"].ticks
    assert [label for _, label in numbers] == ["0", "+0.2", "+0.4", "+0.6", "+0.8", "+1"]


def headings(html: str) -> dict[str, str]:
    """The sentences beside the title of each section."""
    found = re.findall(r"<header><h2>(.*?)</h2><p>(.*?)</p></header>", html)
    return {title: unescape(sentences) for title, sentences in found}


def test_each_sentence_of_a_heading_is_computed_from_what_was_recorded(
    artifacts: dict[str, Artifact], html: str
) -> None:
    said = headings(html)
    ingest, funnel = artifacts["ingest"].facts(), artifacts["curate"].facts()["funnel"]
    lost = {step["step"]: step["before"] - step["after"] for step in funnel}
    heaviest = max(lost, key=lambda step: lost[step])
    assert said.pop("Rows") == (
        f"{funnel[-1]['after']:,} of {ingest['read']:,} rows are used for training and testing."
        f" “{heaviest.capitalize()}” dropped the most: {lost[heaviest]:,}."
    )
    expectations = artifacts["validate"].facts()["expectations"]
    assert all(expectation["success"] for expectation in expectations)
    assert said.pop("Validation") == f"All {len(expectations)} checks hold."
    splits = artifacts["tokenize"].facts()["splits"].values()
    total = {name: sum(split[name] for split in splits) for name in ("rows", "tokens", "truncated_rows", "lost_tokens")}
    assert said.pop("Tokens") == (
        f"{total['tokens']:,} tokens in {total['rows']:,} rows. {total['truncated_rows'] / total['rows']:.1%} of rows"
        f" were cut, and {total['lost_tokens'] / (total['tokens'] + total['lost_tokens']):.1%} of all tokens lost."
    )
    lines = (artifacts["train"].path / "history.jsonl").read_text("utf8").splitlines()
    history, training = [json.loads(line) for line in lines], artifacts["train"].facts()
    lowest = min((line for line in history if line.get("valid_loss")), key=lambda line: line["valid_loss"])
    assert said.pop("Training") == (
        f"{len({line['step'] for line in history})} steps in {training['seconds']:.1f} s."
        f" The validation loss was lowest, {lowest['valid_loss']:.4f}, at step {lowest['step']}."
    )
    metrics = json.loads((artifacts["evaluate"].path / "metrics.json").read_text("utf8"))
    assert said.pop("Metrics") == (
        f"The model and the baselines on the same {metrics['rows']} test rows."
        f" Lines are {metrics['confidence']:.0%} intervals."
    )
    assert set(said) == {"Classes", "Confusion", "Calibration", "Slices", "Worst errors", "Speed", "Lineage"}


def test_each_sentence_on_the_answers_is_computed_from_what_was_recorded(
    artifacts: dict[str, Artifact], html: str
) -> None:
    said = headings(html)
    metrics = json.loads((artifacts["evaluate"].path / "metrics.json").read_text("utf8"))
    f1 = {name: of["f1"]["value"] for name, of in metrics["per_class"].items()}
    (best, high), (worst, low) = (chosen(f1.items(), key=lambda item: item[1]) for chosen in (max, min))
    assert said["Classes"] == f"{len(f1)} classes. Strongest is {best} (F1 {high:.1%}), weakest {worst} ({low:.1%})."
    matrix, labels = np.array(metrics["confusion"]["counts"]), metrics["confusion"]["labels"]
    wrong = matrix - np.diag(np.diag(matrix))
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    assert said["Confusion"] == (
        f"Most often {labels[true]} is taken for {labels[taken]}: {wrong.max()} of {matrix[true].sum()} rows."
    )
    calibration = metrics["calibration"]
    bins = [line for line in calibration["bins"] if line["rows"]]
    drift = sum(line["rows"] * (line["confidence"] - line["accuracy"]) for line in bins) / sum(
        line["rows"] for line in bins
    )
    assert drift > 0.02
    assert said["Calibration"].endswith(f"It is off by {calibration['ece']:.1%} on average, overconfident.")
    assert said["Worst errors"].startswith(f"The {len(metrics['worst'])} test rows with the most confident wrong")
    speed = json.loads((artifacts["evaluate"].path / "speed.json").read_text("utf8"))
    slowest = max(speed["parts"], key=lambda part: speed["parts"][part])
    assert slowest == speed["slowest"] == "forward"
    assert said["Speed"] == (
        f"{speed['rows_per_second']:.0f} rows a second in batches, the largest part of the time for the model's forward"
        " pass."
    )


def test_calibration_says_which_way_it_is_off(tmp_path: Path, plain: Page) -> None:
    assert "overconfident" in plain.sections["calibration"]
    bins = [{"low": 0.5, "high": 0.6, "confidence": 0.55, "accuracy": 0.8, "rows": 100}]
    modest = page(tmp_path, change={"metrics": {"calibration": {"ece": 0.25, "bins": bins}}})
    assert "off by 25.0% on average, underconfident" in modest.sections["calibration"]


def test_a_text_of_a_million_characters_is_cut_and_counted(tmp_path: Path) -> None:
    worst = [{"id": "a:1", "text": "word " * 200_000, "label": "x", "predicted": "y", "confidence": 0.9, "source": "a"}]
    html = render("demo", build(tmp_path, change={"metrics": {"worst": worst}}), {})
    assert len(html) < 300_000
    assert "more characters)" in Page(html).sections["errors"]


def test_lineage_leads_from_the_model_back_to_the_source(artifacts: dict[str, Artifact], plain: Page) -> None:
    lineage = plain.sections["lineage"]
    for stage in ("ingest", "curate", "validate", "tokenize", "train"):
        assert lineage.count(artifacts[stage].digest) == 2  # its own, and the next stage's input
    assert "max_length: 64" in lineage and "pyarrow 21.0.0" in lineage


def test_the_same_run_gives_the_same_bytes(artifacts: dict[str, Artifact], html: str) -> None:
    assert render("demo", artifacts, {}) == html
