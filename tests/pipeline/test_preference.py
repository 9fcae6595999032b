"""Preferences through the whole line, from a file to a version that answers."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.in_process import Line
from tests.tiny_bases import WORDS, tiny_llama

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


def rows(path: Path) -> Path:
    """Questions whose liked answers name a colour: pairs in LLaMA-Factory's form, and a malformed one."""
    chance, found = random.Random(1), []
    for _ in range(160):
        asked = " ".join(chance.sample(WORDS, k=5))
        good = f"{chance.choice(('red', 'green', 'blue'))} please"
        bad = " ".join(chance.sample(("card", "money", "lost", "stolen"), k=3))
        turns = [{"from": "human", "value": asked}]
        found.append(
            {
                "conversations": turns,
                "chosen": {"from": "gpt", "value": good},
                "rejected": {"from": "gpt", "value": bad},
            }
        )
    found.append({"conversations": turns, "chosen": {"from": "gpt", "value": ""}, "rejected": {"from": "gpt"}})
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize(
    ("loss", "method"), [("dpo", {"kind": "lora", "rank": 4, "merged": False}), ("kto", {"kind": "full"})]
)
def test_preferences_go_the_whole_line(
    loss: str, method: dict[str, object], hone: Hone, line: Line, tmp_path: Path
) -> None:
    tree = {
        "name": "preferences",
        "objective": {"kind": "preference", "loss_type": loss, "answer_tokens": 4},
        "ingest": {"source": {"kind": "files", "paths": [str(rows(tmp_path / "rows.json"))]}, "max_refused": 0.05},
        "curation": {"steps": [{"kind": "normalize"}, {"kind": "filters"}]},
        "model": {"base": str(tiny_llama(tmp_path / "base"))},
        "tokenization": {"max_length": 32},
        "method": method,
        "training": {"epochs": 6, "batch_size": 16, "learning_rate": 2.0e-2, "precision": "fp32"},
        "evaluation": {"resamples": 100},
    }
    conf = tmp_path / "preferences.yaml"
    conf.write_text(yaml.safe_dump(tree))
    made = line(conf)
    assert made["ingest"].facts()["reasons"] == {"rejected has a message whose content is not text": 1}
    facts = made["evaluate"].facts()
    assert facts["metrics"]["reward_accuracy"] > 0.9
    assert facts["metrics"]["kl"] > 0
    assert facts["baselines"]["untuned"]["reward_accuracy"] == 0.5
    assert facts["baselines"]["length"]["reward_accuracy"] > 0.5
    assert facts["comparisons"]["untuned"]["p"] < 0.05
    assert not (made["train"].path / "reference").exists()

    asked = [json.dumps([{"role": "user", "content": "where is my card"}])]
    [answer] = line.served("preferences").predict(asked).to_dict("records")
    assert set(answer) == {"completion", "log_probability"}
    assert answer["log_probability"] < 0
    if loss == "dpo":
        # By the command, in processes of its own: up to the tokens it is done, and a shorter training is another model.
        done = hone("run", conf, "training.epochs=1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("up to date") == 4, done.stdout
        assert "train     starting · training.epochs 6.0 -> 1.0\n" in done.stdout
        assert "preferences version 2, alias candidate" in done.stdout
    if loss == "kto":
        assert set(answer["completion"].split()) & {"red", "green", "blue", "please"}
