"""Objectives whose models write text, through the whole line."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.tracking.version_tags import unfold_digests
from tests.in_process import Line
from tests.tiny_bases import TALK, tiny_t5, tiny_talker

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {{- ' ' + message.role + '\\n' + message.content + ' ' + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- ' assistant\\n' }}{%- endif %}
"""


def written(folder: Path, tree: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    data, conf = folder / "rows.jsonl", folder / "conf.yaml"
    data.write_text("\n".join(map(json.dumps, rows)))
    base: dict[str, Any] = {
        "ingest": {"source": {"kind": "files", "paths": [str(data)]}},
        "curation": {"steps": [{"kind": "normalize"}, {"kind": "duplicates"}], "split": {"near_duplicate": 1.0}},
        "validation": {"on_failure": "warn"},
        "evaluation": {"resamples": 100, "slices": ["length"]},
    }
    base["ingest"] |= tree.pop("ingest", {})
    conf.write_text(yaml.safe_dump(base | tree))
    return conf


def said(count: int) -> list[tuple[str, str]]:
    """Requests and answers: the colour, twice."""
    draw, found = random.Random(3), {}
    while len(found) < count:
        colour = draw.choice(["red", "green", "blue"])
        words = [*draw.choices("say tell me the word twice please now and then one two three".split(), k=6), colour]
        draw.shuffle(words)
        found[" ".join(words)] = f"{colour} {colour}"
    return list(found.items())


def test_a_decoder_learns_to_answer_and_is_served(hone: Hone, line: Line, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"instruction": asked, "input": "", "output": told} for asked, told in said(300)]
    rows[7]["output"] = ""
    rows[8] = {"instruction": "say " * 200, "output": "red red"}
    (tmp_path / "talk.jinja").write_text(TEMPLATE)
    tree = {
        "name": "talk",
        "ingest": {"max_refused": 0.01},
        "objective": {"kind": "chat", "template": str(tmp_path / "talk.jinja"), "generate": 8, "max_new_tokens": 8},
        "model": {"base": str(tiny_talker(tmp_path / "base"))},
        "tokenization": {"max_length": 24, "max_dropped": 0.05},
        "training": {"epochs": 12, "batch_size": 16, "learning_rate": 5.0e-3, "precision": "fp32"},
    }
    made = line(written(tmp_path, tree, rows))

    assert made["ingest"].facts()["reasons"] == {"empty content": 1}
    [dropped] = made["tokenize"].facts()["dropped"].values()
    assert dropped == {"no assistant token is within max_length": 1}
    facts = made["evaluate"].facts()
    assert facts["metrics"]["token_accuracy"] > 0.95
    assert facts["metrics"]["exact_match"] > 0.8
    assert facts["metrics"]["perplexity"] < 1.3 < facts["baselines"]["untuned"]["perplexity"]

    model = line.served("talk")
    asked = [{"role": "user", "content": "please say the word green now"}]
    again = [*asked, {"role": "assistant", "content": "red"}]
    assert model.predict([json.dumps(asked), json.dumps(again)])["answer"].tolist() == ["green green"] * 2
    with pytest.raises(Exception, match="unknown role: messages"):
        model.predict([json.dumps([{"role": "narrator", "content": "x"}])])

    # Another template beside the weights is another model: it does not answer.
    place = made["train"].path / "model"
    assert (place / "chat_template.jinja").read_text() == TEMPLATE
    from mlflow import MlflowClient

    version = MlflowClient(line.home.tracking_uri).get_model_version_by_alias("talk", "candidate")
    import hashlib

    assert unfold_digests(version.tags)["hone.template_sha256"] == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    home = next((line.home.root / "mlflow").rglob("artifacts/model/chat_template.jinja"))
    text = home.read_text()
    home.unlink()
    home.write_text(text.replace("assistant\\n", "helper\\n"))
    with pytest.raises(Exception, match=r"not the model that was registered: .*chat_template\.jinja was changed"):
        line.served("talk").predict([json.dumps(asked)])

    # The file is part of what decides the tokens.
    (tmp_path / "talk.jinja").write_text(TEMPLATE + "\n")
    assert "input" in next(
        line for line in hone("plan", tmp_path / "conf.yaml").stdout.splitlines() if "tokenize" in line
    )


def test_an_encoder_decoder_learns_to_write_and_is_served(line: Line, tmp_path: Path) -> None:
    rows = [{"document": [asked, "then."], "summary": [told, f"{told} now"]} for asked, told in said(300)]
    tree = {
        "name": "brief",
        "ingest": {"columns": {"text": "document", "target": "summary"}},
        "objective": {"kind": "seq2seq", "prefix": "tell me ", "max_target_length": 8},
        "model": {"base": str(tiny_t5(tmp_path / "base", words=TALK))},
        "method": {"kind": "full"},
        "tokenization": {"max_length": 24},
        "training": {"epochs": 15, "batch_size": 16, "learning_rate": 1.0e-2, "precision": "fp32"},
    }
    made = line(written(tmp_path, tree, rows))
    facts = made["evaluate"].facts()
    assert facts["metrics"]["rougeL"] > 0.8 > facts["baselines"]["copy"]["rougeL"]
    assert set(facts["baselines"]) == {"lead", "copy", "untuned"}
    answer = line.served("brief").predict(["please say the word green now then."])
    assert answer["text"].tolist() == ["green green"]
