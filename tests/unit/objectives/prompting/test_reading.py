"""How the answers of each objective are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score

from hone.objectives.base import UNSEEN
from hone.objectives.chat.objective import Chat
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.prompting.forms import Choices, find_choice, write_choice
from hone.objectives.prompting.numbers import parse_number
from hone.objectives.prompting.prompting import Judgement, Prompting
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.regression import Regression
from hone.objectives.seq2seq import Seq2Seq
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification

LABELS = ["Yes", "no", "Sci/Tech", "sci.", "A", "a"]
BIO = {"labels": ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"], "scheme": "prefixed"}
NO_TOKENS = pa.table({})


def prompting_of(objective: Any) -> Prompting:
    prompting = objective.prompting
    assert isinstance(prompting, Prompting)
    return prompting


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Yes", "Yes"),
        (" yes\n", "Yes"),
        ('"Yes"', "Yes"),
        ("“Yes”", "Yes"),
        ("Yes.", "Yes"),
        ("sci.", "sci."),
        ("sci", None),
        ("**Yes**", "Yes"),
        ("`no`", "no"),
        ("Label: no", "no"),
        ("**Output:** no.", "no"),
        ("**Label**: Sci/Tech", "Sci/Tech"),
        ("```\nYes\n```", "Yes"),
        ('```json\n{"label": "yes"}\n```', "Yes"),
        ('{"label": "no", "reason": "x"}', None),
        ("A", "A"),
        ("a", "a"),
        ("Yes\n\nThe text is no complaint.", "Yes"),
        ("I think it is\nYes", None),
        ("Yes\nno", None),
        ("Yes, no", None),
        ("Yes or no", None),
        ("Yess", None),
        ("not Yes", None),
        ("", None),
        ("[]", None),
        ("null", None),
        ('"' * 2000, None),
        ("[" * 100_000, None),
    ],
)
def test_a_label_is_read_without_what_is_around_it_and_nothing_else_is(answer: str, label: str | None) -> None:
    index = find_choice(answer, Choices(LABELS))
    assert (None if index is None else LABELS[index]) == label


def test_a_label_that_differs_from_another_by_case_alone_is_read_to_the_letter() -> None:
    choices = Choices(["IT", "It", "on"])
    assert [find_choice(answer, choices) for answer in ("IT", "It", "it", "ON")] == [0, 1, None, 2]


def test_odd_labels_are_written_as_json_and_read_again() -> None:
    labels = ['"x"', "x", "two\nlines", "`b`", '{"a": 1}', "[1]", "Label: x", "x.", "**x**", "7", "null", "é", " x", ""]
    written = [write_choice(label) for label in labels]
    choices = Choices(labels)
    assert [find_choice(text, choices) for text in written] == list(range(len(labels)))
    assert written[1] == "x" and written[2] == r'"two\nlines"' and not any("\n" in text for text in written)
    task = prompting_of(TextClassification()).describe_task({"labels": labels})
    lines = task.splitlines()
    assert lines[1:-1] == [f"- {text}" for text in written] and "JSON string" in lines[-1]
    assert "JSON" not in prompting_of(TextClassification()).describe_task({"labels": ["x", "y"]})


def judge_labels(right: Sequence[str], answers: Sequence[str]) -> tuple[Judgement, dict[str, float]]:
    labels = ["bad", "good", "rare"]
    targets = {"labels": labels}
    encoded = [labels.index(label) if label in labels else len(labels) for label in right]
    rows = pa.table({"label": right})
    judgement = prompting_of(TextClassification()).judge(answers, pa.table({"label": encoded}), targets, rows)
    metrics = TextClassification().compute_metrics(judgement.outcome.statistics.sum(0)[:, None], targets)
    return judgement, {name: float(value[0]) for name, value in metrics.items()}


def test_classification_metrics_are_scikit_learns_with_invalid_answers_as_no_label() -> None:
    draw = np.random.default_rng(7)
    right = draw.choice(["bad", "good", "new"], 40).tolist()
    answers = draw.choice(["bad", "good", "rare", "what?"], 40, p=[0.4, 0.3, 0.1, 0.2]).tolist()
    judgement, metrics = judge_labels(right, answers)
    predicted = ["(invalid)" if answer == "what?" else answer for answer in answers]
    occurring = sorted({*right, *predicted} - {"(invalid)"})
    assert metrics["accuracy"] == pytest.approx(accuracy_score(right, predicted), abs=1e-12)
    macro = f1_score(right, predicted, labels=occurring, average="macro", zero_division=0)
    assert metrics["macro_f1"] == pytest.approx(macro, abs=1e-12)
    assert judgement.invalid.tolist() == [answer == "what?" for answer in answers]


def test_a_label_of_no_training_row_is_wrong_for_every_answer() -> None:
    judgement, metrics = judge_labels(["new", "new", "good"], ["new", UNSEEN, "good"])
    assert judgement.invalid.tolist() == [True, True, False]
    assert judgement.outcome.errors.tolist() == [1, 1, 0]
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert judgement.outcome.classes is not None
    assert judgement.outcome.classes.tolist() == [[3, 3, 1], [4, 4, 1]]
    assert judgement.outcome.confidences is None


def judge_sets(right: Sequence[Sequence[str]], answers: Sequence[str]) -> tuple[Judgement, dict[str, float]]:
    labels = ["7", "joy", "love, deep"]
    targets = {"labels": labels, "thresholds": [0.0, 0.9, 1.0]}  # tuned for the trained model, not for words
    marks = pa.array([[int(name in names) for name in labels] for names in right], pa.list_(pa.int8()))
    tokens = pa.table({"labels": marks, "unseen": [bool(set(names) - set(labels)) for names in right]})
    judgement = prompting_of(MultiLabelClassification()).judge(answers, tokens, targets, pa.table({"labels": ["[]"]}))
    metrics = MultiLabelClassification().compute_metrics(judgement.outcome.statistics.sum(0)[:, None], targets)
    return judgement, {name: float(value[0]) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ('["joy", "7"]', "7, joy"),
        ('[7, "JOY", "joy"]', "7, joy"),
        ('Here they are:\n```json\n["joy"]\n```', "joy"),
        ('{"labels": ["joy"]}', "joy"),
        ("joy, 7", "7, joy"),
        ("Labels: joy; 7.", "7, joy"),
        ("- joy\n- 7", "7, joy"),
        ("love, deep", "love, deep"),
        ('"joy"', "joy"),
        ("7", "7"),
        ("[]", "(none)"),
        ("None.", "(none)"),
        ('["joy", "sorrow"]', None),
        ('["joy", null]', None),
        ("joy sorrow", None),
        ('{"joy": 1, "7": 0}', None),
        ("", None),
    ],
)
def test_a_list_of_labels_is_read_if_all_of_them_exist(answer: str, names: str | None) -> None:
    judgement, _ = judge_sets([["joy"]], [answer])
    assert judgement.invalid.tolist() == [names is None]
    assert judgement.outcome.predictions == [answer.strip() if names is None else names]


def test_an_invalid_list_is_no_exact_match_of_a_row_without_labels() -> None:
    judgement, metrics = judge_sets([[], [], ["joy"]], ["[]", "?", "?"])
    assert judgement.outcome.errors.tolist()[0] == 0 and min(judgement.outcome.errors[1:]) >= 1
    assert metrics["subset_accuracy"] == pytest.approx(1 / 3)
    assert metrics["hamming_loss"] == pytest.approx(1 / 9)
    assert metrics["micro_f1"] == 0


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("4.5", 4.5),
        (" -3 ", -3),
        ("\u22123", -3),
        ("+2", 2),
        ("1e3", 1000),
        (".5", 0.5),
        ("5.", 5),
        ("4.5 stars", 4.5),
        ("The rating is 4.5.", 4.5),
        ("Output: 4.5", 4.5),
        ('{"label": 4.5}', 4.5),
        ("```\n4.5\n```", 4.5),
        ("**4.5**", 4.5),
        ("$5", 5),
        *[(text, None) for text in ("4,5", "1,000", "1 000", "50%", "4/5", "4 of 5", "3-4", "12:30", "1.2.3")],
        *[(text, None) for text in ("", "four", "nan", "inf", "GPT4", "4x", "--4", "٤", "²", "1_000")],
    ],
)
def test_a_number_is_read_if_there_is_no_doubt_which(answer: str, number: float | None) -> None:
    assert parse_number(answer) == number


def test_an_unreadable_number_counts_as_the_mean_and_is_wrong() -> None:
    targets = {"mean": 3.0, "deviation": 2.0}
    tokens = pa.table({"label": [3.0, 5.0, 1.0, 7.0], "standard": [0.0, 1.0, -1.0, 2.0]})
    answers = ["three", "1e999", "1", "-1e300"]
    judgement = prompting_of(Regression()).judge(answers, tokens, targets, pa.table({}))
    assert judgement.invalid.tolist() == [True, True, False, True]
    assert judgement.outcome.errors.tolist() == [1e-6, 1, 0, 2]
    assert judgement.outcome.predictions == ["three", "1e999", "1", "-1e300"]
    metrics = Regression().compute_metrics(judgement.outcome.statistics.sum(0)[:, None], targets)
    assert metrics["mae"][0] == pytest.approx((0 + 2 + 0 + 4) / 4)


def judge_entities(
    words: str, tags: str, answer: str, targets: dict[str, Any] = BIO
) -> tuple[Judgement, dict[str, float]]:
    rows = pa.table({"tokens": [json.dumps(words.split())], "tags": [json.dumps(tags.split())]})
    judgement = prompting_of(TokenClassification()).judge([answer], NO_TOKENS, targets, rows)
    metrics = TokenClassification().compute_metrics(judgement.outcome.statistics.sum(0)[:, None], targets)
    return judgement, {name: float(np.nan_to_num(value[0])) for name, value in metrics.items()}


def item(text: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "type": kind, **more}


@pytest.mark.parametrize(
    ("items", "shown"),
    [
        ([item("Ann", "PER"), item("New York", "LOC")], "Ann [PER]; New York [LOC]"),
        ([item("New  York", "loc"), item("Ann", "per")], "New York [LOC]; Ann [PER]"),
        ([item("Ann", "PER"), item("Ann", "PER"), item("New York", "LOC")], "Ann [PER]; New York [LOC]; Ann [PER]"),
        ([item("Ann", "PER"), item("Ann", "PER")], "Ann [PER]; Ann [PER]"),
        ([item("Ann", "PER")] * 3, "Ann [PER]; Ann [PER]; Ann [PER]"),
        ([item("Ann", "PER", start=17)], "Ann [PER]"),
        ([item("Nina", "PER")], "Nina [PER]"),
        ([item("York", "LOC"), item("New York", "LOC")], "York [LOC]; New York [LOC]"),
        ([item("New Yor", "LOC")], "New Yor [LOC]"),
        ([item("Ann", "ORG")], "Ann [unknown type]"),
        ([item("\ud800", "PER")], "? [PER]"),
        ([], "no entity"),
    ],
)
def test_entities_are_placed_at_whole_words_in_the_order_of_the_text(items: list[dict[str, Any]], shown: str) -> None:
    judgement, _ = judge_entities("Ann saw New York Ann", "B-PER O B-LOC I-LOC B-PER", json.dumps(items))
    assert not judgement.invalid.any() and judgement.outcome.predictions == [shown]


def test_the_offset_of_an_entity_chooses_among_its_occurrences() -> None:
    answer = json.dumps([item("May", "PER", start=10)])  # the last May is at 12
    judgement, metrics = judge_entities("May I see May", "O O O B-PER", answer)
    assert metrics["entity_f1"] == 1 and judgement.outcome.errors.tolist() == [0]
    assert judge_entities("May I see May", "O O O B-PER", json.dumps([item("May", "PER")]))[1]["entity_f1"] == 0
    rows = pa.table({"tokens": ['["May", "I", "see", "May"]'], "tags": ['["O", "O", "O", "B-PER"]']})
    assert prompting_of(TokenClassification()).build_answers(rows, BIO) == [json.dumps([item("May", "PER", start=10)])]


def test_misplaced_entities_lower_precision_and_the_others_stay_right() -> None:
    items = [item("Ann", "PER"), item("nobody", "PER"), item("York", "ORG")]
    judgement, metrics = judge_entities("Ann saw York", "B-PER O B-LOC", json.dumps(items))
    assert metrics["precision"] == pytest.approx(1 / 3) and metrics["recall"] == 0.5
    assert metrics["token_accuracy"] == pytest.approx(2 / 3)
    assert judgement.outcome.errors.tolist() == [3]


def test_a_type_of_no_training_row_is_never_right() -> None:
    _, metrics = judge_entities("Ann ran", "B-NEW O", json.dumps([item("Ann", "NEW")]))
    assert metrics["entity_f1"] == 0


@pytest.mark.parametrize("answer", ["", "none", '{"text": "Ann"}', '["Ann"]', '[{"text": "Ann"}]', '[{"type": "PER"}]'])
def test_an_unreadable_list_of_entities_is_wrong_where_there_are_none(answer: str) -> None:
    judgement, metrics = judge_entities("all is well", "O O O", answer)
    assert judgement.invalid.tolist() == [True] and judgement.outcome.errors.tolist() == [1]
    assert metrics["token_accuracy"] == 0


@pytest.mark.parametrize(
    ("labels", "tags"),
    [
        (["B-LOC", "I-LOC", "O"], "B-LOC I-LOC O B-LOC B-LOC"),
        (["B-LOC", "E-LOC", "I-LOC", "O", "S-LOC"], "B-LOC E-LOC O S-LOC S-LOC"),
        (["I-LOC", "O"], "I-LOC I-LOC O O I-LOC"),
        (["B-LOC", "I-LOC", "O"], "I-LOC I-LOC O I-LOC B-LOC"),  # IOB1
        (["B", "I", "O"], "B I O B B"),
    ],
)
def test_right_answers_have_all_tags_right_in_every_scheme(labels: list[str], tags: str) -> None:
    targets = {"labels": labels, "scheme": "prefixed"}
    rows = pa.table({"tokens": ['["New", "York", "or", "Rome", "Rome"]'], "tags": [json.dumps(tags.split())]})
    right = prompting_of(TokenClassification()).build_answers(rows, targets)[0]
    _, metrics = judge_entities("New York or Rome Rome", tags, right, targets)
    assert set(metrics.values()) == {1.0}


def test_neighbours_of_one_type_are_one_entity_where_tags_cannot_separate_them() -> None:
    targets = {"labels": ["LOC", "O"], "scheme": "runs"}
    answer = json.dumps([item("New", "LOC"), item("York", "LOC")])
    assert judge_entities("New York", "LOC LOC", answer, targets)[1]["entity_f1"] == 1


def test_every_word_is_listed_where_every_word_has_a_tag() -> None:
    targets = {"labels": ["NOUN", "VERB"], "scheme": "words"}
    rows = pa.table({"tokens": ['["run", "run"]'], "tags": ['["VERB", "NOUN"]']})
    prompting = prompting_of(TokenClassification())
    right = prompting.build_answers(rows, targets)[0]
    assert json.loads(right) == [item("run", "VERB"), item("run", "NOUN")]
    assert "Tag each word" in prompting.describe_task(targets)
    assert set(judge_entities("run run", "VERB NOUN", right, targets)[1].values()) == {1.0}
    _, metrics = judge_entities("run run", "VERB NOUN", json.dumps([item("run", "VERB")]), targets)
    assert metrics["token_accuracy"] == 0.5


def judge_answer(answer: str, references: Sequence[str], *, no_answer: bool = True) -> tuple[Judgement, float, float]:
    context = "The card is in Rome. Answer: 42 is not it."
    value = json.dumps({"text": list(references), "answer_start": [0] * len(references)})
    rows = pa.table({"question": ["which?"], "context": [context], "answers": [value]})
    judgement = prompting_of(QuestionAnswering()).judge([answer], NO_TOKENS, {"no_answer": no_answer}, rows)
    f1, exact = judgement.outcome.statistics[0, :2]
    return judgement, float(f1), float(exact)


@pytest.mark.parametrize(
    ("answer", "references", "exact"),
    [
        ("Rome", ["Rome"], 1),
        ('"rome".', ["Rome"], 1),
        ("Answer: Rome", ["Rome"], 1),
        ("```\nRome\n```", ["Rome"], 1),
        ('{"answer": "Rome"}', ["Rome"], 1),
        ("Answer: 42", ["Answer: 42"], 1),
        ("unanswerable", [], 1),
        ("Unanswerable.", [], 1),
        ("unanswerable", ["Rome"], 0),
        ("unanswerable", ["unanswerable"], 1),
        ("Rome", [], 0),
    ],
)
def test_an_answer_is_compared_without_what_is_around_it(answer: str, references: list[str], exact: int) -> None:
    judgement, _, actual = judge_answer(answer, references)
    assert actual == exact and not judgement.invalid.any()
    assert (judgement.outcome.errors > 0).tolist() == [not exact]


@pytest.mark.parametrize("answer", ["", " ", "...", "the"])
def test_an_answer_without_words_is_wrong_even_where_there_is_no_answer(answer: str) -> None:
    judgement, f1, exact = judge_answer(answer, [])
    assert judgement.invalid.tolist() == [True] and (f1, exact) == (0, 0)
    assert judgement.outcome.statistics[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    assert judgement.outcome.errors.tolist() == [2]


def test_without_unanswerable_training_rows_the_phrase_is_a_text() -> None:
    prompting = prompting_of(QuestionAnswering())
    assert judge_answer("unanswerable", ["Rome"], no_answer=False)[0].outcome.predictions == ["unanswerable"]
    assert judge_answer("unanswerable", ["Rome"])[0].outcome.predictions == ["no answer"]
    tasks = [prompting.describe_task({"no_answer": no_answer}) for no_answer in (False, True)]
    assert ["unanswerable" in task for task in tasks] == [False, True]


def test_passages_support_an_answer_that_they_contain_in_whole_words() -> None:
    answers = [json.dumps({"text": texts, "answer_start": [0]}) for texts in (["the Red Card"], ["red"], ["red"], [])]
    rows = pa.table({"question": ["q"] * 4, "context": ["c"] * 4, "answers": [*answers[:3], None]})
    prompting = prompting_of(QuestionAnswering())
    support = prompting.find_support(rows, [["blue", "a red, card!"], ["it is shredded"], [], ["red"]])
    assert support == [True, False, False, None]
    assert prompting.build_queries(rows) == prompting.build_open_questions(rows) == ["q"] * 4
    assert prompting_of(TextClassification()).find_support(rows, []) == [None] * 4


CALL = {"type": "function", "function": {"name": "pay", "arguments": {"sum": 3}}}
CONVERSATION = {
    "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "pay  3"},
        {"role": "assistant", "content": "well", "tool_calls": [CALL]},
        {"role": "tool", "content": "done"},
        {"role": "assistant", "content": "not learned", "weight": 0},
    ],
    "tools": [{"type": "function", "function": {"name": "pay"}}],
}


def test_a_conversation_is_asked_up_to_the_last_turn_that_is_learned() -> None:
    rows = pa.table({"id": ["a"], "messages": [json.dumps(CONVERSATION)]})
    prompting = prompting_of(Chat())
    tools = 'tools:\n{"type": "function", "function": {"name": "pay"}}'
    assert prompting.build_questions(rows) == [f"{tools}\n\nsystem: be kind\n\nuser: pay  3"]
    assert prompting.build_answers(rows, {}) == ['well\n{"name": "pay", "arguments": {"sum": 3}}']


def test_chat_is_compared_on_the_rows_that_the_trained_model_answers() -> None:
    tokens = pa.table({"prompt": pa.array([4, 0, 5, 6], pa.int32())})
    selected = prompting_of(Chat(generate=3)).select_rows(tokens)
    assert selected is not None and selected.tolist() == [True, False, True, False]
    assert prompting_of(Seq2Seq()).select_rows(tokens) is None


def test_rows_with_null_or_empty_values_have_questions_and_answers() -> None:
    nothing = pa.array([None, ""], pa.string())
    for objective, columns in (
        (TextClassification(), ("text", "label")),
        (MultiLabelClassification(), ("text", "labels")),
        (TokenClassification(), ("tokens", "tags")),
        (QuestionAnswering(), ("question", "context", "answers")),
        (Seq2Seq(), ("text", "target")),
    ):
        prompting = prompting_of(objective)
        rows = pa.table(dict.fromkeys(columns, nothing))
        assert len(prompting.build_questions(rows)) == len(prompting.build_open_questions(rows)) == 2
        answers = prompting.build_answers(rows, {**BIO, "no_answer": True})
        assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
    assert prompting_of(Regression()).build_questions(pa.table({"text": nothing})) == ["", ""]
