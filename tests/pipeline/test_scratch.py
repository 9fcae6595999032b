"""A model from scratch: the line makes its tokenizer and its weights of the curated text, and says so."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.in_process import Line

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


def test_a_model_from_scratch_goes_the_whole_line(hone: Hone, line: Line, conf: Path) -> None:
    tree = yaml.safe_load(conf.read_text())
    sizes = {"hidden_size": 32, "layers": 2, "heads": 2, "positions": 64, "vocabulary": 400}
    tree["model"] = {"scratch": {"architecture": "bert", **sizes}}
    tree["tokenization"] = {"max_length": 64}
    tree["training"]["epochs"] = 1
    conf.write_text(yaml.safe_dump(tree))

    before = hone("plan", conf).stdout.split()
    assert "base" in before
    made = line(conf)
    assert 256 < made["base"].facts()["vocabulary"] <= 400
    report = (made["register"].path / "report.html").read_text()
    assert "bert from scratch" in report
    assert made["base"].digest in report

    # A longer training uses the same tokenizer and weights.
    longer = hone("plan", conf, "training.epochs=2").stdout.splitlines()
    assert [line.split()[1] for line in longer if line.split()[0] in ("base", "tokenize", "train")] == [
        "hit",
        "hit",
        "miss",
    ]
    # Another seed is another model, with the same tokens.
    assert "model.scratch.seed 17 -> 3" in hone("plan", conf, "model.scratch.seed=3").stdout

    both = hone("plan", conf, "model.base=somewhere")
    assert both.returncode == 2
    assert "set either base or scratch" in both.stderr
