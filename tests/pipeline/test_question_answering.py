"""Questions through the whole line, to a registered model that is asked."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.in_process import Line
from tests.tiny_bases import tiny_bert

pytestmark = pytest.mark.slow

COLOURS = ["red", "green", "blue"]
FILLING = "the a we saw again there was some more of it in town with our own old friends and many others".split()


def paragraph(draw: random.Random, number: int) -> dict[str, Any]:
    """Thirty words, one of them a colour or none, and the question which."""
    words = draw.choices(FILLING, k=30)
    at, colour = draw.randrange(1, len(words)), draw.choice(COLOURS)
    answers = []
    if number % 4:
        words[at] = colour
        answers = [{"text": colour, "answer_start": len(" ".join(words[:at])) + 1}]
    question = {"id": str(number), "question": "which colour", "answers": answers, "is_impossible": not answers}
    return {"context": " ".join(words), "qas": [question]}


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A configuration of 240 questions in SQuAD 2.0's form, whose contexts take two windows."""
    draw = random.Random(4)
    data = [{"title": "colours", "paragraphs": [paragraph(draw, number) for number in range(240)]}]
    (tmp_path / "squad.json").write_text(json.dumps({"version": "v2.0", "data": data}))
    tree = {
        "name": "asked",
        "objective": {"kind": "question-answering", "stride": 6},
        "ingest": {
            "source": {"kind": "files", "paths": [str(tmp_path / "squad.json")], "format": "squad"},
            "keep": ["question_id"],
        },
        "curation": {"steps": [{"kind": "normalize"}]},
        "model": {"base": str(tiny_bert(tmp_path / "base", words=["which", "colour", *COLOURS, *FILLING]))},
        "tokenization": {"max_length": 28},
        "training": {"epochs": 20, "batch_size": 16, "learning_rate": 5.0e-3, "precision": "fp32"},
        "evaluation": {"resamples": 100},
    }
    path = tmp_path / "asked.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_answers_are_learned_judged_registered_and_found(line: Line, asked: Path) -> None:
    made = line(asked)
    metrics = json.loads((made["evaluate"].path / "metrics.json").read_text())
    ours = metrics["systems"]["model"]
    assert ours["f1"]["value"] > 0.8
    assert ours["no_answer_accuracy"]["value"] > 0.8
    assert set(metrics["systems"]) == {"model", "overlap", "no_answer"}
    tokens = made["tokenize"].facts()
    assert tokens["splits"]["test"]["sequences"] == 2 * metrics["rows"]
    assert tokens["splits"]["test"]["lost_tokens"] == 0

    contexts = [" ".join([*FILLING, "green", *FILLING]), " ".join(FILLING)]
    told = line.served("asked").predict(pd.DataFrame({"question": ["which colour"] * 2, "context": contexts}))
    assert told["answer"].tolist() == ["green", ""]
    assert contexts[0][told["start"][0] : told["end"][0]] == "green"
    assert told["start"][1] == told["end"][1] == -1
