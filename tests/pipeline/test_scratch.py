"""A model from scratch: the line makes its tokenizer and its weights of the curated text, and says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


def test_a_model_from_scratch_goes_the_whole_line(hone: Hone, conf: Path, environment: dict[str, str]) -> None:
    tree = yaml.safe_load(conf.read_text())
    sizes = {"hidden_size": 32, "layers": 2, "heads": 2, "positions": 64, "vocabulary": 400}
    tree["model"] = {"scratch": {"architecture": "bert", **sizes}}
    tree["tokenization"] = {"max_length": 64}
    tree["training"]["epochs"] = 1
    conf.write_text(yaml.safe_dump(tree))

    before = hone("plan", conf).stdout.split()
    assert "base" in before
    done = hone("run", conf)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small version 1" in done.stdout

    [base] = Path(environment["HONE_HOME"], "store", "base").glob("*/manifest.json")
    facts = json.loads(base.read_text())["facts"]
    assert 256 < facts["vocabulary"] <= 400
    [report] = Path(environment["HONE_HOME"], "store", "register").glob("*/report.html")
    assert "bert from scratch" in report.read_text()
    assert json.loads(base.read_text())["digest"] in report.read_text()

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
    assert "give either base or scratch" in both.stderr
