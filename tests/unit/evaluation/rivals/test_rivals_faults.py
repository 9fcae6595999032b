"""What goes wrong with rivals at the edges: one row, a cheap model, a template with mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.errors import ConfigError
from hone.evaluation.judging.evaluate import Trial
from hone.evaluation.judging.metrics import resample
from hone.evaluation.judging.rivals import Answers, judge_rivals
from hone.evaluation.report.report_rivals import describe_rivals
from hone.evaluation.rivals.prompts import Parts, Template
from hone.objectives.regression import Regression
from hone.store import layout

ROWS, IDS = 6, [f"a.csv:{n}" for n in range(6)]
LABELS = [float(n) for n in range(ROWS)]


def write_answers(folder: Path, ids: list[str], prices: Mapping[str, tuple[float, float]]) -> Answers:
    lines = [
        {"rival": "api", "id": row, "answer": row[-1], "ended": "stop", "input_tokens": 9, "output_tokens": 1}
        | {"seconds": 0.5, "shots": 0, "supported": None}
        for row in ids
    ]
    types = (pa.string(),) * 4 + (pa.int64(),) * 2 + (pa.float64(), pa.int64(), pa.bool_())
    schema = pa.schema(zip(lines[0], types, strict=True))
    pq.write_table(pa.Table.from_pylist(lines, schema), folder / layout.ANSWERS)
    summary = {"name": "api", "model": "m", "api": "openai", "shots": 0, "choose": "random", "passages": 0}
    summary |= {
        "stopped": "",
        "retries": {},
        "left_out": 0,
        "example": "",
        "prompts": "",
        "unanswered": {"input": 0, "output": 0},
    }
    (folder / layout.RIVALS).write_text(json.dumps([summary]))
    return Answers(folder, prices)


def test_a_rival_with_one_row_of_a_regression_is_reported(tmp_path: Path) -> None:
    """R² of one row is undefined: that is no fault of the report, and no evidence for the trained model."""
    objective, targets = Regression(), {"mean": 2.5, "deviation": 2.0}
    rows = pa.table({"id": IDS, "text": ["a"] * ROWS, "label": [str(label) for label in LABELS]})
    standard = (np.array(LABELS) - 2.5) / 2.0
    tokens = pa.table({"id": IDS, "label": standard, "standard": standard})
    ours = objective.compute_outcome(tokens, {"scores": np.zeros(ROWS)}, targets)
    trial = Trial(rows, objective, targets, {"model": ours}, 0.95)
    draws = resample(ROWS, 50, seed=1)
    [rival] = judge_rivals(write_answers(tmp_path, IDS[:1], {"api": (1.0, 0.5)}), trial, tokens, draws, 1.0, {})
    assert rival["comparison"]["p"] == 1
    assert rival["theirs"]["mae"]["value"] == 0
    measures = {"r2": {"title": "R²", "lower": False, "share": False}}
    [sentence] = describe_rivals({"rivals": [rival], "measures": measures, "rows": ROWS})
    assert "on 1 of 6 rows" in sentence
    # 9 tokens at 1 and one at 0.5 per million: 9.5 per million answers.
    assert "; 0.0095 per 1,000 answers" in sentence
    [rival] = judge_rivals(write_answers(tmp_path, IDS, {}), trial, tokens, draws, 1.0, {})
    assert rival["theirs"]["r2"]["value"] == 1


@pytest.mark.parametrize(
    "expression",
    ["{{ 1 / 0 }}", "{{ question + 1 }}", "{{ question() }}", "{{ range(10**9) | list }}", "{% include 'more' %}"],
)
def test_a_template_that_fails_is_an_error_of_the_configuration(tmp_path: Path, expression: str) -> None:
    path = tmp_path / "prompt.jinja"
    path.write_text("{{ question }}" + expression)
    with pytest.raises(ConfigError, match=r"prompt\.jinja: .+"):
        Template(path).render(Parts("task", [], [], "why?"))
