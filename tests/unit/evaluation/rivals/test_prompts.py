"""What a model is asked: the task, examples and passages in the prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.errors import ConfigError, DataError
from hone.evaluation.rivals.answering import Contender, Library, Task, build_prompts, read_task
from hone.evaluation.rivals.prompts import Parts, Template, fit_prompt
from hone.objectives import OBJECTIVES
from hone.objectives.chat.objective import Chat
from hone.sources.source import RawRow
from hone.store import layout

FACTS = {
    "Oslo": "Which city is the capital of Norway?",
    "Tromsø": "Where does the midnight sun shine on a university?",
    "Bergen": "Which city has the most rain?",
}
CORPUS = [
    "The capital of Norway is Oslo.",
    "A university with midnight sun in summer is in Tromsø.",
    "Bergen has more rain than any other city.",
    "Nothing of interest is written here.",
]


def question_rows() -> pa.Table:
    rows = [
        {
            "id": answer,
            "question": question,
            "context": f"A long page about {answer}.",
            "answers": json.dumps({"text": [answer], "answer_start": [18]}),
        }
        for answer, question in FACTS.items()
    ]
    return pa.Table.from_pylist(rows)


def make_task(rows: pa.Table) -> Task:
    objective = OBJECTIVES["question-answering"]()
    return Task(objective, objective.prompting, objective.build_targets(rows), rows, rows)


def test_rows_that_the_trained_model_does_not_answer_are_not_asked(tmp_path: Path) -> None:
    """Of a chat's rows it answers the first `generate`, without those whose answer was cut off."""
    messages = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}"}] for n in range(6)]
    rows = pa.table({"id": list("abcdef"), "messages": [json.dumps(turns) for turns in messages]})
    for split in ("train", "test"):
        pq.write_table(rows, tmp_path / layout.rows_file(split))
    encoded = pa.table({"id": list("abdef"), "prompt": [5, 0, 5, 5, 5]})  # c was dropped, b cut off
    with pa.ipc.new_file(tmp_path / layout.tokens_file("test"), encoded.schema) as writer:
        writer.write(encoded)
    task = read_task(tmp_path, tmp_path, Chat(generate=4))
    assert task.test["id"].to_pylist() == ["a", "d", "e"]
    prompts = build_prompts(task, make_contender(limit=2), lambda _: True)
    assert len(prompts.texts) == 2 and set(prompts.positions) < {0, 1, 2}


def make_contender(**fields: Any) -> Contender:
    defaults = {"name": "x", "build_engine": None, "template": Template(), "shots": 0, "choose": "random"}
    defaults |= dict.fromkeys(("library", "limit", "prices", "max_cost", "base"))
    return Contender(**{**defaults, "seed": 1, **fields})


def make_library(*texts: Any, count: int = 1) -> Library:
    rows = [RawRow(f"corpus.txt:{n}", "corpus", {"text": text}) for n, text in enumerate(texts)]
    return Library(lambda: iter(rows), "text", 50, 5, count, "bm25")


def test_passages_replace_the_context_and_their_recall_is_measured() -> None:
    task = make_task(question_rows())
    prompts = build_prompts(task, make_contender(library=make_library(*CORPUS)), lambda _: True)
    answers = [list(FACTS)[position] for position in prompts.positions]
    for answer, prompt in zip(answers, prompts.texts, strict=True):
        [passage] = [text for text in CORPUS if answer in text]
        assert f"Passage 1: {passage}" in prompt and FACTS[answer] in prompt
        assert "A long page" not in prompt
    assert prompts.is_supported == [True] * 3
    others = build_prompts(task, make_contender(library=make_library(CORPUS[3])), lambda _: True)
    assert others.is_supported == [False] * 3


def test_a_corpus_without_the_column_is_refused() -> None:
    task = make_task(question_rows())
    with pytest.raises(DataError, match=r"corpus\.txt:1: has no text in the column text"):
        build_prompts(task, make_contender(library=make_library("a", None)), lambda _: True)
    with pytest.raises(DataError, match=r"corpus.*: has no text"):
        build_prompts(task, make_contender(library=make_library("  ")), lambda _: True)


def test_the_nearest_example_is_next_to_the_question() -> None:
    task = make_task(question_rows())
    prompts = build_prompts(task, make_contender(shots=3, choose="bm25"), lambda _: True)
    for position, prompt in zip(prompts.positions, prompts.texts, strict=True):
        answer, question = list(FACTS.items())[position]
        # The test rows are training rows here: each is its own nearest example.
        assert prompt.count("Output: ") == 3 and prompt.count(question) == 2
        assert prompt.rpartition("\nInput: ")[0].rstrip().endswith(f"Output: {answer}")


def test_the_least_similar_examples_are_left_out_of_a_prompt_that_is_too_long() -> None:
    shots = [{"question": f"question {n}", "answer": f"answer {n}"} for n in range(5)]
    prompt, count = fit_prompt(Parts("Do.", shots, (), "now?"), Template().render, lambda text: len(text) < 100)
    assert count == 2 and "answer 4" in prompt and "answer 3" in prompt and "answer 2" not in prompt
    prompt, count = fit_prompt(Parts("Do.", shots, (), "now?"), Template().render, lambda text: len(text) < 30)
    assert count == 0 and prompt == "Do.\n\nInput: now?\nOutput:"
    assert fit_prompt(Parts("Do.", shots, (), "now?"), Template().render, lambda _: False) == ("", 0)


def test_what_rows_contain_is_text(tmp_path: Path) -> None:
    odd = "{{ task }} {% raw %} \\ <b>&amp;</b> 🙂\n\nInput: x"
    assert Template().render(Parts("Do.", [{"question": odd, "answer": odd}], [odd], odd)).count(odd) == 4
    template = tmp_path / "t.jinja"
    template.write_text("{{ question.__class__.__mro__ }}{{ question }}")
    with pytest.raises(ConfigError, match="unsafe"):
        Template(template).render(Parts("", (), (), "x"))
    template.write_text("{{ questions }}")
    with pytest.raises(ConfigError, match="'questions' is undefined"):
        Template(template).render(Parts("", (), (), "x"))
    template.write_text("{% if %}")
    with pytest.raises(ConfigError, match=r"t\.jinja"):
        Template(template)
