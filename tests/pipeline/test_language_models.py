"""The whole line on plain text: what is learned of it is judged, compared with the base, registered and asked."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_bases import WORDS, tiny_llama, tiny_masked, tiny_t5
from tests.tiny_training import without_dropout

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

ASK = """
import json, mlflow.pyfunc, sys
model = mlflow.pyfunc.load_model("models:/small@candidate")
print(json.dumps(model.predict(json.loads(sys.argv[1])).to_dict("records")))
"""


def write_texts(path: Path, follow: bool, rows: int = 240) -> Path:
    """Sentences in which each word is followed by the next of the list, or by itself, but for one word.

    Easy to learn, unknown to a random model.
    """
    draw, lines = random.Random(3), []
    for _ in range(rows):
        start = draw.randrange(len(WORDS))
        words = [WORDS[(start + i * follow) % len(WORDS)] for i in range(draw.randint(4, 30))]
        words[draw.randrange(len(words))] = draw.choice(WORDS)
        lines.append(" ".join(words))
    path.write_text("\n".join(lines) + "\n")
    return path


def run(
    hone: Hone, tmp_path: Path, base: Path, objective: dict[str, Any], follow: bool = True, **training: Any
) -> None:
    texts = write_texts(tmp_path / "texts.txt", follow)
    tree = {
        "name": "small",
        "objective": objective,
        "ingest": {"source": {"kind": "files", "paths": [str(texts)]}},
        # Sentences of one round are near to each other by nature.
        "curation": {
            "steps": [{"kind": "normalize"}, {"kind": "duplicates"}],
            "split": {"valid": 0.1, "test": 0.2, "near_duplicate": 1.0},
        },
        "model": {"base": str(base)},
        "tokenization": {"max_length": 16},
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 1.0e-2, **training},
        "evaluation": {"resamples": 200},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    done = hone("run", tmp_path / "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small version 1, alias candidate" in done.stdout


def manifest(environment: dict[str, str], stage: str) -> dict[str, Any]:
    [file] = Path(environment["HONE_HOME"], "store", stage).glob("*/manifest.json")
    found: dict[str, Any] = json.loads(file.read_text())["facts"]
    return found


def ask(environment: dict[str, str], texts: list[str]) -> list[dict[str, Any]]:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db"}
    command = [sys.executable, "-P", "-c", ASK, json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | store)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_a_decoder_goes_on_pre_training(hone: Hone, tmp_path: Path, environment: dict[str, str]) -> None:
    base = tiny_llama(tmp_path / "base")
    run(hone, tmp_path, base, {"kind": "causal-lm", "max_new_tokens": 6})
    account = manifest(environment, "tokenize")["splits"]
    # Packed, four fifths of the training rows' room are full at the least; the others stand as they are.
    assert account["train"]["sequences"] < 1.25 * account["train"]["tokens"] / 16
    assert account["test"]["sequences"] > account["test"]["rows"]
    assert account["train"]["lost_tokens"] == 0
    facts = manifest(environment, "evaluate")
    assert facts["rows"] == account["test"]["rows"]
    assert facts["metrics"]["perplexity"] < 3 < facts["baselines"]["untuned"]["perplexity"]
    assert facts["comparisons"]["untuned"]["low"] > 0
    [answer] = ask(environment, ["the a is was where"])
    assert answer["continuation"].split()[:3] == WORDS[5:8]
    assert answer["perplexity"] < 3


def test_an_encoder_goes_on_finding_masked_words(hone: Hone, tmp_path: Path, environment: dict[str, str]) -> None:
    base = without_dropout(tiny_masked(tmp_path / "base"))
    run(hone, tmp_path, base, {"kind": "masked-lm"}, follow=False, epochs=20)
    facts = manifest(environment, "evaluate")
    assert facts["metrics"]["masked_accuracy"] > facts["baselines"]["untuned"]["masked_accuracy"] + 0.3
    assert facts["comparisons"]["untuned"]["low"] > 0
    [answer, without] = ask(environment, ["card card [MASK] card card card", "my card"])
    assert answer["text"] == "card card card card card card"
    assert (without["text"], without["score"]) == ("my card", 1.0)


def test_an_encoder_decoder_goes_on_filling_gaps(hone: Hone, tmp_path: Path, environment: dict[str, str]) -> None:
    objective = {"kind": "span-corruption", "span": 2, "max_new_tokens": 8}
    run(hone, tmp_path, tiny_t5(tmp_path / "base"), objective, epochs=12)
    facts = manifest(environment, "evaluate")
    assert facts["metrics"]["perplexity"] < facts["baselines"]["untuned"]["perplexity"] / 2
    assert facts["comparisons"]["untuned"]["low"] > 0
    [answer] = ask(environment, ["the a is <extra_id_0> where my card"])
    assert answer["text"].startswith("the a is ")
    assert answer["text"].endswith(" where my card")
    assert "extra_id" not in answer["text"]
