"""Rows are similar in what tells them apart: not by a footer, a prompt, a passage or a system message they share."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.config.sections import Curation
from hone.curation import STEPS
from hone.curation.conflicts import LabelConflicts
from hone.curation.curate import curate
from hone.curation.dedup.near import clusters
from hone.curation.duplicates import Duplicates
from hone.curation.split import find_contaminated_rows, group_rows
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.text_classification import TextClassification
from hone.pipeline.stage import build_part
from hone.progress import ignore
from hone.splits import SPLITS
from hone.store.layout import rows_file

WORDS = [f"word{i}" for i in range(2000)]


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def table(objective: Objective, *rows: dict[str, Any], splits: list[str] | None = None) -> pa.Table:
    """The rows as ingest would write them."""
    shaped = [objective.normalize_row(row) for row in rows]
    columns = {
        name: [value if isinstance(value := row.get(name), str | None) else json.dumps(value) for row in shaped]
        for name in objective.columns
    }
    columns["id"] = [f"row{i}" for i in range(len(rows))]
    columns["split"] = list(splits or [""] * len(rows))
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def count_kept(objective: Objective, rows: pa.Table, **options: Any) -> int:
    return Duplicates(**options).apply(rows, objective, ignore).reasons.count("")


def curate_by_default(
    objective: Objective, rows: list[dict[str, Any]], out: Path, **split: float
) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split after the steps of a configuration without any."""
    sources = pa.array([""] * len(rows), pa.string())
    pq.write_table(table(objective, *rows).append_column("source", sources), out / "rows.parquet")
    steps = [(part.kind, build_part(STEPS, part)) for part in Curation().steps]
    curate(out / "rows.parquet", out, steps=steps, fields=objective, seed=17, near_duplicate=0.8, **split)
    return {split: pq.read_table(out / rows_file(split)).to_pylist() for split in SPLITS}


def tickets(count: int = 400) -> list[str]:
    """Texts of 15 random words, every second one with the same footer of 150."""
    draw = random.Random(3)
    footer = words(draw, 150)
    return [words(draw, 15) + (f"\n{footer}" if i % 2 else "") for i in range(count)]


def test_a_footer_of_half_of_the_rows_does_not_make_them_duplicates() -> None:
    texts = tickets()
    assert clusters(texts, 0.8) != list(range(400))  # with the footer they are similar
    rows = table(MaskedLM(), *({"text": text} for text in texts))
    assert count_kept(MaskedLM(), rows) == 400
    assert count_kept(MaskedLM(), table(MaskedLM(), *({"text": text} for text in [*texts, *texts[:50]]))) == 400


def test_rows_with_a_footer_are_in_every_split_in_their_share(tmp_path: Path) -> None:
    sizes = {"train": 280, "valid": 40, "test": 80}
    rows_by_split = curate_by_default(MaskedLM(), [{"text": text} for text in tickets()], tmp_path, valid=0.1, test=0.2)
    assert {split: len(rows) for split, rows in rows_by_split.items()} == sizes  # all 400 of them
    for split, rows in rows_by_split.items():
        footers = sum("\n" in row["text"] for row in rows)
        assert abs(footers - sizes[split] / 2) < 3 * (sizes[split] / 4) ** 0.5


def test_rows_with_a_footer_are_not_contamination() -> None:
    splits = ["train", "train", "train", "test"] * 100
    rows = table(MaskedLM(), *({"text": text} for text in tickets()), splits=splits)
    assert find_contaminated_rows(rows, MaskedLM(), 0.8) == {}


@pytest.mark.parametrize(("count", "share"), [(200, 1), (300, 2)])
def test_chats_under_one_system_prompt_are_different(count: int, share: int, tmp_path: Path) -> None:
    """All of them, or every second one, have the same system prompt of 250 words."""
    draw, chat = random.Random(4), OBJECTIVES["chat"]()
    system = {"role": "system", "content": words(draw, 250)}
    rows = []
    for i in range(count):
        turns = [{"role": "user", "content": words(draw, 8)}, {"role": "assistant", "content": words(draw, 8)}]
        rows.append({"messages": turns if i % share else [system, *turns]})
    assert sum(map(len, curate_by_default(chat, rows, tmp_path, valid=0.1, test=0.1).values())) == count
    other = {"role": "system", "content": words(draw, 250)}
    repeated = [*rows, rows[0], {"messages": [other, *rows[0]["messages"][1:]]}]
    assert count_kept(chat, table(chat, *repeated)) == count + 1


def test_pairs_of_one_prompt_are_different_and_stay_together() -> None:
    draw, preference = random.Random(5), OBJECTIVES["preference"]()
    prompts = [words(draw, 200) for _ in range(4)]
    pairs = [{"prompt": prompts[i % 4], "chosen": words(draw, 9), "rejected": words(draw, 9)} for i in range(50)]
    rows = table(preference, *pairs)
    assert count_kept(preference, rows) == 50
    assert set(group_rows(rows, preference, 0.8).leaders) == {0, 1, 2, 3}
    assert count_kept(preference, table(preference, *pairs, pairs[0])) == 50
    # What is to be written is compared by the character, and which one was chosen is the answer.
    for change in (
        {"chosen": pairs[0]["chosen"].upper()},
        {"chosen": pairs[0]["rejected"], "rejected": pairs[0]["chosen"]},
    ):
        assert count_kept(preference, table(preference, *pairs, pairs[0] | change), near=True) == 51


def test_questions_about_one_passage_are_different_and_stay_together(shared: Path) -> None:
    qa = OBJECTIVES["question-answering"]()
    paragraphs = [
        paragraph
        for article in json.loads((shared / "datasets/xquad/xquad.en.json").read_text("utf8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    questions = [
        {"question": question["question"], "context": paragraph["context"], "answers": question["answers"]}
        for paragraph in paragraphs
        for question in paragraph["qas"]
    ]
    rows = table(qa, *questions)
    reasons = Duplicates().apply(rows, qa, ignore).reasons
    assert len(reasons) == 1190
    assert reasons.count("duplicate") == 3  # XQuAD asks three questions about a passage twice, with the same answer
    assert reasons.count("") == 1187
    assert len(set(group_rows(rows, qa, 0.8).leaders)) <= len(paragraphs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("great :)", "great :("),
        ("C", "C++"),
        ("C++", "C#"),
        ("x == 1", "x != 1"),
        ("-5 degrees", "5 degrees"),
        ("the result of the sum a + b is c", "the result of the sum a * b is c"),
    ],
)
def test_symbols_have_a_meaning(one: str, other: str) -> None:
    rows = table(MaskedLM(), {"text": one}, {"text": other}, {"text": f" {one.upper()}\n"})
    assert Duplicates().apply(rows, MaskedLM(), ignore).reasons == ["", "", "duplicate"]


ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text-classification": ({"text": "one text", "label": "a"}, {"label": "b"}),
    "multi-label-classification": ({"text": "one text", "labels": ["a"]}, {"labels": ["a", "b"]}),
    "regression": ({"text": "one text", "label": "1.5"}, {"label": "2.5"}),
    "token-classification": ({"tokens": ["one", "text"], "tags": ["O", "B-X"]}, {"tags": ["B-X", "O"]}),
    "question-answering": (
        {"question": "who", "context": "Ann or Bo", "answers": {"text": ["Ann"], "answer_start": [0]}},
        {"answers": {"text": ["Bo"], "answer_start": [7]}},
    ),
    "seq2seq": ({"text": "one text", "target": "a target"}, {"target": "another one"}),
    "chat": (
        {"messages": [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]},
        {"messages": [{"role": "user", "content": "why"}, {"role": "assistant", "content": "not"}]},
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_answer_belongs_to_what_is_compared(kind: str) -> None:
    objective, (row, change) = OBJECTIVES[kind](), ANSWERS[kind]
    rows = table(objective, row, row | change, row)
    assert Duplicates().apply(rows, objective, ignore).reasons == ["", "", "duplicate"]
    verdict = LabelConflicts().apply(rows, objective, ignore)
    if objective.single_answer:
        assert all("same text, two" in reason for reason in verdict.reasons)
        assert all(": 2" in detail and ": 1" in detail for detail in verdict.details)
    elif kind != "chat":  # whose answer is part of its text
        assert verdict.reasons == [""] * 3
        assert verdict.summary == "3 rows have a text with other answers too"


def test_a_chain_of_similar_rows_is_divided_and_its_length_reported() -> None:
    draw = random.Random(6)
    text = draw.sample(WORDS, 60)
    chain = []
    for i in range(40):
        chain.append(" ".join(text))
        text[i % 60] = f"new{i}"
    rows = table(MaskedLM(), *({"text": text} for text in chain))
    assert set(clusters(chain, 0.8)) == {0}
    verdict = Duplicates(common=1.0).apply(rows, MaskedLM(), ignore)
    kept = [i for i, reason in enumerate(verdict.reasons) if not reason]
    assert 1 < len(kept) < 40
    for index, repeated in enumerate(verdict.repeated):
        if repeated:
            leader = int(repeated.removeprefix("row"))
            assert leader in kept
            assert clusters([chain[leader], chain[index]], 0.8) == [0, 0]
    largest = max(1 + verdict.repeated.count(f"row{leader}") for leader in kept)
    assert verdict.summary == f"the largest cluster has {largest} rows"


def test_a_group_that_chains_a_large_part_together_is_divided_before_the_split() -> None:
    draw = random.Random(7)
    # No words are in so many rows that they do not count.
    chain = [" ".join(f"word{i}" for i in range(4 * first, 4 * first + 40)) for first in range(60)]
    texts = chain + [words(draw, 15) for _ in range(200)]
    rows = table(TextClassification(), *({"text": text, "label": "a"} for text in texts))
    groups = group_rows(rows, TextClassification(), 0.8)
    sizes = Counter(groups.leaders).values()
    assert groups.largest == max(sizes) <= 26  # a tenth of the rows
    assert len(sizes) > 200
    assert groups.divided == 60
    copies = table(TextClassification(), *({"text": texts[-1 if i < 40 else i], "label": "a"} for i in range(260)))
    groups = group_rows(copies, TextClassification(), 0.8)
    assert (groups.largest, groups.divided) == (41, 0)  # copies stay together, however many there are


def test_what_is_said_of_one_long_prompt_is_not_repeated() -> None:
    draw, chat = random.Random(8), OBJECTIVES["chat"]()
    article = words(draw, 200)
    rows = []
    for question, answer in (("one?", "Yes."), ("one?", "No."), ("two?", "Yes."), ("two?", "Yes.\n    indented")):
        turns = [{"role": "user", "content": f"{article} {question}"}, {"role": "assistant", "content": answer}]
        rows.append({"messages": turns})
    assert count_kept(chat, table(chat, *rows, rows[0])) == 4
    splits = ["train"] * 3 + ["test"]
    contaminated = find_contaminated_rows(table(chat, *rows[:3], rows[0], splits=splits), chat, 0.8)
    assert contaminated == {0: ("also in test", 3)}


def test_a_completion_that_was_liked_and_disliked_is_a_contradiction() -> None:
    kto = OBJECTIVES["preference"](loss_type="kto")  # type: ignore[call-arg]
    row = {"prompt": "p q r", "completion": " x y z"}
    rows = table(kto, row | {"label": True}, row | {"label": False}, row | {"label": True})
    assert Duplicates().apply(rows, kto, ignore).reasons == ["", "", "duplicate"]
    assert LabelConflicts().apply(rows, kto, ignore).summary == "3 rows have a text with other answers too"


def test_answers_at_two_places_are_two_answers() -> None:
    qa = OBJECTIVES["question-answering"]()
    row = {"question": "which", "context": "alpha beta alpha"}
    places = [{"text": ["alpha"], "answer_start": [start]} for start in (0, 11)]
    rows = table(qa, *(row | {"answers": answers} for answers in places))
    assert count_kept(qa, rows) == 2
