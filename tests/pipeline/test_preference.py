"""Preferences through the whole line, from a file to a version that answers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.tiny_bases import WORDS, tiny_llama

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

# A clean process has no hone to import: the version answers by itself.
ASK = """
import json, sys, mlflow
sys.modules["hone"] = None
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/preferences@candidate")
print("ANSWER", json.dumps(model.predict(json.loads(sys.argv[2])).to_dict("records")))
"""


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
    loss: str, method: dict[str, object], hone: Hone, tmp_path: Path, environment: dict[str, str]
) -> None:
    tree = {
        "name": "preferences",
        "objective": {"kind": "preference", "loss_type": loss, "answer_tokens": 4},
        "ingest": {"source": {"kind": "files", "paths": [str(rows(tmp_path / "rows.json"))]}, "max_refused": 0.05},
        "curation": {"steps": [{"kind": "normalize"}, {"kind": "filters"}]},
        "model": {"base": str(tiny_llama(tmp_path / "base"))},
        "tokenization": {"max_length": 32},
        "method": method,
        "training": {"epochs": 6, "batch_size": 16, "learning_rate": 2.0e-2},
        "evaluation": {"resamples": 100},
    }
    conf = tmp_path / "preferences.yaml"
    conf.write_text(yaml.safe_dump(tree))
    done = hone("run", conf)
    assert done.returncode == 0, done.stderr
    assert "preferences version 1, alias candidate" in done.stdout

    def newest(stage: str) -> dict[str, object]:
        (file,) = Path(environment["HONE_HOME"], "store", stage).glob("*/manifest.json")
        return json.loads(file.read_text())["facts"]

    assert newest("ingest")["reasons"] == {"rejected has a message whose content is not text": 1}
    facts = newest("evaluate")
    assert facts["metrics"]["reward_accuracy"] > 0.9
    assert facts["metrics"]["kl"] > 0
    assert facts["baselines"]["untuned"]["reward_accuracy"] == 0.5
    assert facts["baselines"]["length"]["reward_accuracy"] > 0.5
    assert facts["comparisons"]["untuned"]["p"] < 0.05
    (train,) = Path(environment["HONE_HOME"], "store", "train").glob("*/model")
    assert not (train.parent / "reference").exists()

    asked = [json.dumps([{"role": "user", "content": "where is my card"}])]
    store = f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db"
    command = [sys.executable, "-c", ASK, store, json.dumps(asked)]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert said.returncode == 0, said.stderr
    [answer] = json.loads(said.stdout.split("ANSWER ")[1])
    assert set(answer) == {"completion", "log_probability"}
    assert answer["log_probability"] < 0
    if loss == "kto":
        assert set(answer["completion"].split()) & {"red", "green", "blue", "please"}
