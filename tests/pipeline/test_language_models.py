"""The whole line on plain text: what is learned of it is judged, compared with the base, registered and asked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.artifacts import Artifact
from tests.in_process import Line
from tests.tiny_bases import WORDS, tiny_llama, tiny_masked, tiny_t5
from tests.tiny_training import without_dropout

pytestmark = pytest.mark.slow


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
    line: Line, tmp_path: Path, base: Path, objective: dict[str, Any], follow: bool = True, **training: Any
) -> dict[str, Artifact]:
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
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 1.0e-2, "precision": "fp32", **training},
        "evaluation": {"resamples": 200},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    return line(tmp_path / "small.yaml")


def ask(line: Line, texts: list[str]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = line.served("small").predict(texts).to_dict("records")
    return answers


def test_a_decoder_goes_on_pre_training(line: Line, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    made = run(line, tmp_path, base, {"kind": "causal-lm", "max_new_tokens": 6})
    account = made["tokenize"].facts()["splits"]
    # Packed, four fifths of the training rows' room are full at the least; the others stand as they are.
    assert account["train"]["sequences"] < 1.25 * account["train"]["tokens"] / 16
    assert account["test"]["sequences"] > account["test"]["rows"]
    assert account["train"]["lost_tokens"] == 0
    facts = made["evaluate"].facts()
    assert facts["rows"] == account["test"]["rows"]
    assert facts["metrics"]["perplexity"] < 3 < facts["baselines"]["untuned"]["perplexity"]
    assert facts["comparisons"]["untuned"]["low"] > 0
    [answer] = ask(line, ["the a is was where"])
    assert answer["continuation"].split()[:3] == WORDS[5:8]
    assert answer["perplexity"] < 3


def test_an_encoder_goes_on_finding_masked_words(line: Line, tmp_path: Path) -> None:
    base = without_dropout(tiny_masked(tmp_path / "base"))
    made = run(line, tmp_path, base, {"kind": "masked-lm"}, follow=False, epochs=20)
    facts = made["evaluate"].facts()
    assert facts["metrics"]["masked_accuracy"] > facts["baselines"]["untuned"]["masked_accuracy"] + 0.3
    assert facts["comparisons"]["untuned"]["low"] > 0
    [answer, without] = ask(line, ["card card [MASK] card card card", "my card"])
    assert answer["text"] == "card card card card card card"
    assert (without["text"], without["score"]) == ("my card", 1.0)


def test_an_encoder_decoder_goes_on_filling_gaps(line: Line, tmp_path: Path) -> None:
    objective = {"kind": "span-corruption", "span": 2, "max_new_tokens": 8}
    made = run(line, tmp_path, tiny_t5(tmp_path / "base"), objective, epochs=12)
    facts = made["evaluate"].facts()
    assert facts["metrics"]["perplexity"] < facts["baselines"]["untuned"]["perplexity"] / 2
    assert facts["comparisons"]["untuned"]["low"] > 0
    [answer] = ask(line, ["the a is <extra_id_0> where my card"])
    assert answer["text"].startswith("the a is ")
    assert answer["text"].endswith(" where my card")
    assert "extra_id" not in answer["text"]
