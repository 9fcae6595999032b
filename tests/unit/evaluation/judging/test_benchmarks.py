"""Benchmark samples of two models, joined by document: intervals, differences, and what a guard needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.errors import DataError
from hone.evaluation.benchmarks.samples import SCHEMA, read_results
from hone.evaluation.judging.benchmarks import BenchmarkResults, judge_benchmarks
from hone.evaluation.report.report import render
from hone.evaluation.report.report_benchmarks import describe_benchmarks
from hone.models.locate import BaseModel
from hone.objectives.text_classification import TextClassification
from hone.registry.card import render_card
from hone.registry.run_record import list_test_metrics
from hone.store import layout
from tests.report_samples import build as build_run

RECORDED = Path(__file__).parents[3] / "fixtures" / "lm_eval"


def write(folder: Path, samples: pa.Table, summary: dict[str, Any]) -> Path:
    folder.mkdir()
    pq.write_table(samples, folder / layout.SAMPLES)
    (folder / layout.BENCHMARKS).write_text(json.dumps(summary))
    return folder


def build(folder: Path, values: np.ndarray, weights: np.ndarray | None = None, **figure: Any) -> Path:
    """One task's samples as a stage writes them."""
    count = len(values)
    columns = {
        "task": ["quiz"] * count,
        "metric": ["acc"] * count,
        "doc": range(count),
        "hash": [f"h{n}" for n in range(count)],
        "value": values,
        "weight": np.ones(count) if weights is None else weights,
    }
    described = {"task": "quiz", "metric": "acc", "value": 0.0, "rows": count, "lower": False, "aggregation": "mean"}
    return write(
        folder, pa.table(columns, SCHEMA), {"figures": [{**described, "version": 1, **figure}], "left_out": []}
    )


def judge(model: Path, base: Path) -> dict[str, Any]:
    return judge_benchmarks(BenchmarkResults(model, base), 500, 0.95, 17)


def test_the_recorded_models_are_compared_on_the_same_documents(tmp_path: Path) -> None:
    base, model = (write(tmp_path / name, *read_results(RECORDED / name)) for name in ("base", "damaged"))
    report = judge(model, base)
    assert report["left_out"] == ["endings/bleu.as-is", "endings/bleu.first-word"]
    figures = {(figure["task"], figure["metric"]): figure for figure in report["figures"]}
    letters, tales = figures["letters", "acc"], figures["tales", "bits_per_byte"]
    assert (letters["ours"]["value"], letters["theirs"]["value"], letters["rows"]) == (0.6, 1.0, 5)
    assert letters["comparison"]["difference"] == pytest.approx(-0.4)
    assert (letters["fall"]["lost"], letters["fall"]["won"]) == (2, 0)
    # Lower is better: a higher figure is a loss, in the metric's unit.
    assert tales["comparison"]["difference"] == pytest.approx(1.02725 - 3.06313, abs=1e-4)
    assert tales["comparison"]["high"] < 0 and tales["fall"]["p"] == pytest.approx(1 / 501)
    assert not tales["share"] and tales["fall"]["lost"] is None
    assert describe_benchmarks({"benchmarks": report})[2].startswith(
        "letters acc: 60.0% on 5 documents, 40.0 points worse than the base model (100.0%), between −80.0 and"
    )
    logged = list_test_metrics({"systems": {}, "benchmarks": report})
    assert logged["benchmark_letters/acc"] == 0.6 and logged["benchmark_letters/base_acc"] == 1.0
    assert len(logged) == 2 * len(figures)


def test_the_difference_is_paired(tmp_path: Path) -> None:
    """Documents differ far more than the models do on each: drawn apart, the interval would be ten times as wide."""
    easy = np.random.default_rng(1).random(200) * 0.8
    report = judge(build(tmp_path / "model", easy + 0.1), build(tmp_path / "base", easy))
    [figure] = report["figures"]
    assert figure["comparison"]["low"] == pytest.approx(0.1) == figure["comparison"]["high"]
    assert figure["ours"]["high"] - figure["ours"]["low"] > 0.05
    assert figure["share"] and figure["fall"]["lost"] is None


def test_other_documents_are_an_error(tmp_path: Path) -> None:
    model, base = build(tmp_path / "model", np.ones(4)), build(tmp_path / "base", np.ones(4))
    table = pq.read_table(base / layout.SAMPLES)
    changed = table.set_column(3, "hash", pa.array(["h0", "h1", "h3", "h2"]))
    pq.write_table(changed, base / layout.SAMPLES)
    with pytest.raises(DataError, match="asked different documents"):
        judge(model, base)


def test_without_benchmarks_there_is_nothing_to_say() -> None:
    for metrics in ({}, {"benchmarks": None}):
        assert describe_benchmarks(metrics) == []
        assert list_test_metrics({"systems": {}, **metrics}) == {}


def test_the_report_and_the_card_show_each_task_beside_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, model = (write(tmp_path / name, *read_results(RECORDED / name)) for name in ("base", "damaged"))
    report = judge(model, base)
    run = build_run(tmp_path / "store", change={"metrics": {"benchmarks": report}})
    html = render("demo", run, {})
    section = html[html.index('<section id="forgotten">') :].partition("</section>")[0]
    assert "letters" in section and "60.0%" in section and "−40.0" in section and "lower is better" in section
    assert "endings/bleu.as-is" in section and 'href="#forgotten"' in html
    data = {"rows": dict.fromkeys(("train", "valid", "test"), 9), "digests": [], "classes": [], "labels": []}
    facts = {"ingest": run["ingest"].facts(), "funnel": run["curate"].facts()["funnel"], "quarantined": 0}
    monkeypatch.setattr("hone.registry.card._collect_data", lambda _: data | facts)  # the made-up run has no files
    card = render_card(
        run,
        base=BaseModel("tiny", tmp_path, "", "mit"),
        objective=TextClassification(),
        adapter=False,
        model_name="demo",
        alias="candidate",
        max_length=64,
        example={"text": "a"},
        config=(run["evaluate"].path / layout.CONFIG).read_text("utf8"),
        lineage={},
        metrics=run["evaluate"].read_json(layout.METRICS),
        population=[],
    )
    assert "\n- letters acc: 60.0% on 5 documents, 40.0 points worse than the base model" in card
    plain = build_run(tmp_path / "plain")
    assert "forgotten" not in render("demo", plain, {})
