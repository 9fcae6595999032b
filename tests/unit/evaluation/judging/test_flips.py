"""Swapped words: which, in which case, what the model is asked, and which answers count as changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hone.errors import ConfigError
from hone.evaluation.judging.flips import Inputs, ask, judge_flips, plan_flips, swap_inputs
from hone.evaluation.judging.lexicon import Lexicon
from hone.evaluation.judging.lexicon_file import load_lexicon
from hone.objectives import OBJECTIVES

GENDER = load_lexicon("gender-en")


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("He saw her and SHE saw him.", "She saw his and HE saw her."),
        ("he's the father; then others, theme, history", "she's the mother; then others, theme, history"),
        ("Mr. Smith's wife and Ms Jones", "Mrs. Smith's husband and Mr Jones"),
        ("the step-mother of MEN", "the step-father of WOMEN"),
        ("no such word", "no such word"),
    ],
)
def test_whole_words_are_swapped_at_once_in_their_case(text: str, swapped: str) -> None:
    assert GENDER.swap(text) == swapped


def test_swapping_twice_gives_the_text_again_where_no_word_is_in_two_pairs() -> None:
    text = "My Uncle and his... no: the UNCLE, the aunt, a boy, girls, a King"
    assert GENDER.swap(GENDER.swap(text)) == text


def test_a_pair_alone_leaves_the_others_and_ambiguous_words_belong_to_the_first() -> None:
    lexicon = Lexicon("own", [("his", "her"), ("him", "her")])
    assert lexicon.select(0).swap("his her him") == "her his him"
    assert lexicon.select(1).swap("his her him") == "his her her"
    assert lexicon.find_pairs("her") == {0}


def test_names_keep_the_case_that_the_lexicon_writes() -> None:
    assert Lexicon("own", [("McAdam", "Ng")]).swap("McAdam, mcadam, MCADAM, Ng") == "Ng, ng, NG, McAdam"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("pairs: [[he]]", "not a pair of two different words"),
        ("pairs: [[he, He]]", "not a pair of two different words"),
        ("pairs: [[he, two words]]", "not a pair of two different words"),
        ("pairs: [[yes, no]]", "not a pair of two different words"),
        ("pairs: []", "has no pairs"),
        ("[a]", "has no pairs"),
        ("pairs: [[", "cannot be read"),
    ],
)
def test_a_file_that_is_no_lexicon_is_one_error(tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(content, "utf8")
    with pytest.raises(ConfigError, match=fault) as caught:
        load_lexicon(str(file))
    assert caught.value.where == f"evaluation.flips {file}"


def test_the_shipped_lexicon_has_a_source_and_limits_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    assert "Zhao" in GENDER.source and any("his or him" in limit for limit in GENDER.limits)
    assert len({frozenset(pair) for pair in GENDER.pairs}) == len(GENDER.pairs)
    with pytest.raises(ConfigError, match=r"neither a file nor a shipped lexicon \(gender-en\)"):
        load_lexicon("gender-de")


def judge(kind: str, rows: pa.Table, answer: Any, lexicon: Lexicon = GENDER) -> tuple[dict[str, Any], list[Inputs]]:
    """What is reported, and the inputs that were asked."""
    objective, asked = OBJECTIVES[kind](), []

    def answer_all(inputs: Sequence[Inputs]) -> list[Any]:
        asked.extend(inputs)
        return [answer(one) for one in inputs]

    plan, steps = plan_flips(objective, rows, lexicon), []
    answers = ask(plan, answer_all, steps.append)
    assert sum(steps) == len(plan.inputs)
    return judge_flips(plan, answers, objective, rows, 0.95), asked


def texts(*values: str) -> pa.Table:
    return pa.table({"id": [f"r{n}" for n in range(len(values))], "text": list(values), "label": ["x"] * len(values)})


def test_only_rows_with_words_are_asked_and_each_pair_alone_too() -> None:
    rows = texts("he is a nurse", "a nurse", "she and her father", "the king", "he is a nurse")
    report, asked = judge(
        "text-classification", rows, lambda row: {"label": "m" if "he " in f"{row['text']} " else "f"}
    )
    assert (report["of"], report["rows"]) == (5, 4)
    assert "a nurse" not in [row["text"] for row in asked]
    assert len(asked) == len({row["text"] for row in asked})  # nothing twice
    # "she " contains "he ": only the rows with the whole of it gone change, which is none of "he is"/"she is".
    assert report["changed"] == 0
    report, _ = judge("text-classification", rows, lambda row: {"label": row["text"].split()[0]})
    assert report["changed"] == 3 and report["rate"]["value"] == 0.75
    assert report["rate"]["low"] == pytest.approx(0.3006, abs=1e-3)  # Wilson, 3 of 4
    by_pair = {" ".join(pair["pair"]): (pair["rows"], pair["changed"]) for pair in report["by_pair"]}
    assert by_pair == {"he she": (3, 3), "his her": (1, 0), "father mother": (1, 0), "king queen": (1, 0)}
    assert report["listed"][1] == {
        "id": "r2",
        "text": "she and her father",
        "swapped": "he and his mother",
        "before": "she",
        "after": "he",
    }


def test_without_a_row_that_contains_a_word_there_is_no_rate() -> None:
    report, asked = judge("text-classification", texts("a nurse", ""), lambda row: {"label": "x"})
    assert (report["rows"], report["rate"], report["by_pair"], asked) == (0, None, [], [])


def test_a_text_answer_that_repeats_the_swapped_words_is_the_same() -> None:
    rows = pa.table({"id": ["a", "b"], "text": ["He left.", "She left."], "target": ["", ""]})
    report, _ = judge("seq2seq", rows, lambda row: {"text": row["text"].lower()})
    assert (report["rows"], report["changed"]) == (2, 0)
    report, _ = judge("seq2seq", rows, lambda row: {"text": "strong" if row["text"] == "He left." else "kind"})
    assert report["changed"] == 2


def test_words_lists_conversations_and_questions_are_swapped_in_their_own_form() -> None:
    tagger, chat, qa = (OBJECTIVES[kind]() for kind in ("token-classification", "chat", "question-answering"))
    words = {"tokens": json.dumps(["He", "met", "Mary"])}
    assert json.loads(swap_inputs(tagger, words, GENDER)["tokens"]) == ["She", "met", "Mary"]
    messages = [{"role": "user", "content": "Is he ill?"}, {"role": "assistant", "content": "His doctor knows."}]
    rows = pa.table({"id": ["c"], "messages": [json.dumps(messages)]})
    [asked] = chat.question_inputs(rows)
    # The right answer at its end is not sent.
    assert json.loads(asked["messages"]) == messages[:1]
    assert json.loads(swap_inputs(chat, asked, GENDER)["messages"])[0]["content"] == "Is she ill?"
    question = {"question": "Who is she?", "context": "Ann, his wife"}
    assert swap_inputs(qa, question, GENDER) == {"question": "Who is he?", "context": "Ann, her husband"}


def test_tags_are_compared_word_by_word() -> None:
    rows = pa.table({"id": ["a"], "tokens": [json.dumps(["He", "met", "Mary"])], "tags": ["[]"]})

    def answer(row: Inputs) -> dict[str, Any]:
        first = json.loads(row["tokens"])[0]
        return {"tags": [{"tag": "B-PER" if first == "She" else "O"}, {"tag": "O"}, {"tag": None}]}

    report, _ = judge("token-classification", rows, answer)
    assert [(row["before"], row["after"]) for row in report["listed"]] == [("O O -", "B-PER O -")]


def test_objectives_whose_answers_are_numbers_compare_none() -> None:
    compared = {kind for kind, objective in OBJECTIVES.items() if objective().compares_answers}
    assert compared >= {"text-classification", "multi-label-classification", "chat", "seq2seq", "causal-lm"}
    assert not compared & {"regression", "embedding", "masked-lm", "span-corruption"}
