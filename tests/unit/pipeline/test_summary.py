"""A version in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.pipeline.summary import summarize_version
from hone.store import layout
from hone.store.artifact import Product
from hone.store.recipe import Recipe
from hone.store.store import Store


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.233, " (+23.3 over nearest neighbours)"),
        (-0.027, " (2.7 points worse than nearest neighbours)"),
        (None, ""),
    ],
)
def test_the_main_figure_is_compared_with_the_best_baseline(
    difference: float | None, words: str, tmp_path: Path
) -> None:
    systems: dict[str, Any] = {"model": {"accuracy": {"value": 0.688, "low": 0.6, "high": 0.7}}}
    comparisons = {}
    if difference is not None:
        systems["neighbours"] = {"accuracy": {"value": 0.688 - difference, "low": 0.4, "high": 0.8}}
        interval = {"low": difference - 0.1, "high": difference + 0.1, "p": 0.2}
        comparisons["neighbours"] = {"metric": "accuracy", "difference": difference, **interval}
    metrics = {
        "main_metric": "accuracy",
        "measures": {"accuracy": {"title": "Accuracy", "share": True, "lower": False}},
        "rows": 330,
        "confidence": 0.95,
        "systems": systems,
        "comparisons": comparisons,
        "slices": {},
    }

    def write(out: Path) -> Product:
        (out / layout.METRICS).write_text(json.dumps(metrics))
        return Product(1, (layout.METRICS,), {"model": "demo", "version": "3"})

    made, _ = Store(tmp_path).obtain(Recipe("evaluate", {}, {}, {}, {}), write)
    assert summarize_version(made, made) == f"demo version 3, 68.8%{words}"
