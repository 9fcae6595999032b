"""A corpus instead of the rows' contexts: for the rival, and for the trained model."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.config.file import parse_config
from hone.environment import Home
from hone.evaluation.report.report_rivals import describe_rivals
from hone.objectives.chat.objective import Chat
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages
from hone.store import layout
from tests.in_process import begin
from tests.tiny_bases import tiny_bert
from tests.unit.evaluation.rivals.scripted_server import Reply, Request, chat, serve_script

COLOURS = ["red", "green", "blue"]
FILLING = "the a we saw again there was some more of it in town with our own old friends".split()
NAMES = [f"{first}{second}" for first in "bcdfghjklm" for second in ("al", "el", "il", "ol", "ul", "an", "en", "on")]


def write_questions(folder: Path) -> tuple[list[str], Path]:
    """Questions about a name each, in SQuAD's form, and their contexts, which alone have the name."""
    draw, paragraphs, contexts = random.Random(3), [], []
    for name in NAMES:
        words = [name, *draw.choices(FILLING, k=9)]
        words[draw.randrange(1, 10)] = colour = draw.choice(COLOURS)
        context = " ".join(words)
        answer = {"text": colour, "answer_start": context.index(f" {colour}") + 1}
        asked = {"id": name, "question": f"which colour has {name}", "answers": [answer]}
        paragraphs.append({"context": context, "qas": [asked]})
        contexts.append(context)
    path = folder / "squad.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "colours", "paragraphs": paragraphs}]}))
    return contexts, path


def test_the_model_with_the_passages_that_are_its_contexts_is_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, path = write_questions(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in contexts))
    home = begin(tmp_path / "hone", monkeypatch).home
    colour_by_name = {text.split()[0]: next(word for word in text.split() if word in COLOURS) for text in contexts}

    def answer(request: Request) -> Reply:
        """The colour of the name, if the passage that is in the prompt has it."""
        name = request.prompt.removesuffix("\nOutput:").split()[-1]
        return chat(colour_by_name[name] if f"Passage 1: {name} " in request.prompt else "nothing")

    with serve_script(answer=answer) as server:
        rival = {"name": "rag", "api": "openai", "url": server.url, "model": "m"}
        source = {"kind": "files", "paths": [str(tmp_path / "corpus.jsonl")]}
        made = run(
            tmp_path, home, path, rival | {"corpus": {"source": source, "words": 20, "overlap": 2, "passages": 1}}
        )
    metrics = made["evaluate"].read_json(layout.METRICS)
    [judged] = metrics["rivals"]
    assert judged["theirs"]["f1"]["value"] == 1 and judged["recall"] == 1
    assert judged["with_passages"]["ours"]["f1"]["value"] == pytest.approx(judged["ours"]["f1"]["value"])
    assert judged["with_passages"]["comparison"]["difference"] == pytest.approx(0)
    [sentence] = describe_rivals(metrics)
    assert "the trained model with the same passages: " in sentence
    assert "the passages contain the answer of 100.0% of the rows" in sentence
    table = pq.read_table(made["rivals"].path / layout.ANSWERS)
    assert all(passage in contexts for [passage] in table["passages"].to_pylist())


def run(folder: Path, home: Home, path: Path, rival: dict[str, Any]) -> dict[str, Any]:
    words = ["which", "colour", "has", *COLOURS, *FILLING, *NAMES]
    config = parse_config(
        {
            "name": "asked",
            "objective": {"kind": "question-answering", "stride": 4},
            "ingest": {"source": {"kind": "files", "paths": [str(path)], "format": "squad"}},
            "curation": {"steps": [], "split": {"valid": 0.2, "test": 0.3}},
            "model": {"base": str(tiny_bert(folder / "base", words=words))},
            "tokenization": {"max_length": 32},
            "training": {"epochs": 1},
            "evaluation": {"resamples": 100, "slices": [], "rivals": [rival]},
        }
    )
    made: dict[str, Any] = {}
    for stage in list_stages(config)[:-1]:
        made[stage] = run_stage(stage, Job(config, made, home))
    return made


def test_a_chat_has_the_passages_before_the_last_question() -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Who?"},
    ]
    prompting = Chat().prompting
    assert prompting
    for value in (turns, {"messages": turns, "tools": [{"type": "function", "function": {"name": "f"}}]}):
        changed = json.loads(prompting.add_passages({"messages": json.dumps(value)}, ["One.", "Two."])["messages"])
        messages = changed["messages"] if isinstance(changed, dict) else changed
        assert messages[:3] == turns[:3] and messages[3]["content"] == "One.\n\nTwo.\n\nWho?"
