"""Tagged words through the whole line, to a registered model that is asked."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from tests.in_process import Line
from tests.small_line import FILLING, WORDS

pytestmark = pytest.mark.slow


@pytest.fixture
def tagged(tmp_path: Path, base_model: Path) -> Path:
    """A configuration of 240 sentences in CoNLL's columns; entities begin with one of a topic's first five words."""
    draw = random.Random(2)
    lines = []
    for _ in range(240):
        words, tags = draw.choices(FILLING, k=8), ["O"] * 8
        for topic in draw.sample(sorted(WORDS), draw.choice([1, 2])):
            at = draw.randrange(len(words))
            if tags[at] == "O":
                words[at : at + 1] = [draw.choice(WORDS[topic][:5]), draw.choice(WORDS[topic][5:])]
                tags[at : at + 1] = [f"B-{topic}", f"I-{topic}"]
        lines += [f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)] + [""]
    (tmp_path / "rows.conll").write_text("\n".join(lines))
    tree = {
        "name": "tagged",
        "objective": {"kind": "token-classification"},
        "ingest": {"source": {"kind": "files", "paths": [str(tmp_path / "rows.conll")]}},
        "curation": {"steps": [{"kind": "normalize"}, {"kind": "redact"}, {"kind": "duplicates", "near": False}]},
        "model": {"base": str(base_model)},
        "tokenization": {"max_length": 9},
        "training": {"epochs": 12, "batch_size": 8, "learning_rate": 1.0e-2, "precision": "fp32"},
        "evaluation": {"resamples": 100},
    }
    path = tmp_path / "tagged.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_entities_are_learned_judged_registered_and_found(line: Line, tagged: Path) -> None:
    metrics = json.loads((line(tagged)["evaluate"].path / "metrics.json").read_text())
    assert metrics["systems"]["model"]["entity_f1"]["value"] > 0.9
    assert set(metrics["systems"]) == {"model", "most_frequent"}
    assert set(metrics["per_class"]) == set(WORDS)

    model = line.served("tagged")
    text = "we saw  rain frost in town"
    [plain, given] = model.predict([text, json.dumps(text.split())])["entities"].map(json.loads)
    assert [(text[e["start"] : e["end"]], e["type"]) for e in plain] == [("rain frost", "weather")]
    assert [(e["text"], e["start"], e["end"]) for e in given] == [("rain frost", 7, 17)]
    assert 0.5 < plain[0]["score"] <= 1

    # A text of many windows: the model finds what is at its end.
    long = " ".join(["we saw the town"] * 20 + ["rain frost"])
    [last] = [json.loads(answer)[-1] for answer in model.predict([long])["entities"]]
    assert (last["text"], last["end"]) == ("rain frost", len(long))
    [card] = line.home.root.rglob("artifacts/model/README.md")
    assert "at most 9 tokens; a longer text is read in windows." in card.read_text("utf8")
