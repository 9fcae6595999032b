"""Embeddings through the whole line, from pairs to a version that gives vectors."""

from __future__ import annotations

import csv
import random
from itertools import permutations
from pathlib import Path

import pytest
import yaml

from tests.in_process import Line
from tests.small_line import WORDS

pytestmark = pytest.mark.slow


def test_pairs_go_the_whole_line(line: Line, tmp_path: Path, base_model: Path) -> None:
    """Each word of the weather stands for one of sport: nothing that words alone could tell."""
    means = dict(zip(WORDS["weather"], WORDS["sport"], strict=True))
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["question", "answer"])
        for words in random.Random(1).sample(list(permutations(means, 3)), 240):
            out.writerow([" ".join(words), " ".join(means[word] for word in words)])
    tree = {
        "name": "pairs",
        "objective": {"kind": "embedding"},
        "ingest": {
            "source": {"kind": "files", "paths": [str(tmp_path / "pairs.csv")]},
            "columns": {"anchor": "question", "positive": "answer"},
        },
        "curation": {"steps": [{"kind": "normalize"}]},
        "model": {"base": str(base_model)},
        "tokenization": {"max_length": 16},
        "method": {"kind": "lora", "rank": 8, "target_modules": ["query", "value", "dense"]},
        "training": {"epochs": 15, "batch_size": 32, "learning_rate": 1.0e-2, "precision": "fp32"},
        "evaluation": {"resamples": 100},
    }
    conf = tmp_path / "pairs.yaml"
    conf.write_text(yaml.safe_dump(tree))
    facts = line(conf)["evaluate"].facts()
    assert set(facts["baselines"]) == {"bm25", "untuned"}
    assert facts["metrics"]["ndcg_at_10"] > facts["baselines"]["untuned"]["ndcg_at_10"] + 0.1
    assert facts["comparisons"]["bm25"]["p"] < 0.05
    assert facts["merged"]["largest_difference"] < 1e-4

    asked = ["rain sun cloud", "goal match team", "thunder fog hail"]
    model = line.served("pairs")
    query, near, far = (list(vector) for vector in model.predict(asked)["embedding"])
    assert sum(value**2 for value in query) == pytest.approx(1, abs=1e-4)
    cosine = [sum(a * b for a, b in zip(query, other, strict=True)) for other in (near, far)]
    assert cosine[0] > cosine[1]
    assert model.model.metadata.signature.outputs.to_dict()[0]["type"] == "array"
