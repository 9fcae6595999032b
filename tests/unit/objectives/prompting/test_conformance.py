"""What holds of every objective that puts its rows in words: right answers are right, unreadable ones are wrong, and
the words of a trained model's predictions have the metrics that these have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.objectives.chat.objective import Chat
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.prompting import LabelPrompting
from hone.objectives.prompting.prompting import Judgement, Prompting
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.regression import Regression
from hone.objectives.seq2seq import Seq2Seq
from hone.objectives.shared import tagging
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification
from hone.registry.package import serving_code
from hone.testing import check_prompting
from tests.tiny_bases import TALK, tiny_bert, tiny_t5, tiny_talker

TEMPLATE = "{% for turn in messages %}{{ turn.role + ' ' + turn.content + ' ' + eos_token + ' ' }}{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
WORDS = "Ann saw Bob in New York and Ann left York".split()
TAGS = "B-PER O B-PER O B-LOC I-LOC O O O B-LOC".split()
CONTEXT = "The red card is lost, and the blue card is broken."


@dataclass(frozen=True)
class Case:
    """An objective with rows, the texts that its questions must contain, and how a prediction is written in words."""

    objective: Objective
    columns: Mapping[str, list[str]]
    texts: tuple[str, ...]
    garbage: str
    worst: Mapping[str, float]

    @property
    def rows(self) -> pa.Table:
        count = len(next(iter(self.columns.values())))
        columns = {"id": [f"a.csv:{n}" for n in range(count)], **self.columns}
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    @property
    def kind(self) -> str:
        return next(kind for kind in OBJECTIVES if isinstance(self.objective, OBJECTIVES[kind]))


def talk(*turns: str) -> str:
    roles = ("user", "assistant")
    return json.dumps([{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)])


def answered(*pairs: tuple[str, int]) -> str:
    return json.dumps({"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]})


CASES = [
    Case(
        TextClassification(),
        {"text": [" good ", "bad\n\nday", "Label: good"], "label": ["Good", "bad", "two\nlines"]},
        (" good ", "bad\n\nday", "Label: good"),
        "neither",
        {"accuracy": 0, "macro_f1": 0},
    ),
    Case(
        MultiLabelClassification(),
        {"text": ["a", "b ", "c"], "labels": ['["joy", "love, deep"]', "[]", '["joy"]']},
        ("a", "b ", "c"),
        "perhaps joy",
        {"micro_f1": 0, "macro_f1": 0, "subset_accuracy": 0, "hamming_loss": 0.5},
    ),
    Case(
        Regression(),
        {"text": ["a", " b", "c"], "label": ["4.50", "-3", "1e3"]},
        ("a", " b", "c"),
        "many",
        {"pearson": 0, "spearman": 0},
    ),
    Case(
        TokenClassification(),
        {"tokens": [json.dumps(WORDS), '["no", "name"]'], "tags": [json.dumps(TAGS), '["O", "O"]']},
        (" ".join(WORDS), "no name"),
        "Ann and Bob",
        {"entity_f1": 0, "recall": 0, "token_accuracy": 0},
    ),
    Case(
        QuestionAnswering(),
        {
            "question": ["which card is lost?", "whose?"],
            "context": [CONTEXT, CONTEXT],
            "answers": [answered(("red card", 4), ("red", 4)), answered()],
        },
        (CONTEXT, CONTEXT),
        "...",
        {"f1": 0, "exact_match": 0, "has_answer_f1": 0, "has_answer_exact_match": 0, "no_answer_accuracy": 0},
    ),
    Case(
        Seq2Seq(),
        {"text": [" the red card ", "blue"], "target": ["a card that is red", '["the word is blue", "blue now"]']},
        (" the red card ", "blue"),
        " \n",
        {"rougeL": 0, "rouge1": 0, "rouge2": 0, "bleu": 0},
    ),
    Case(
        Chat(),
        {"messages": [talk("say red", "red please now"), talk("say", "one", "and then?", "two three")]},
        ("say red", "and then?"),
        " \n",
        {"exact_match": 0, "rougeL": 0},
    ),
]
BY_KIND = {case.kind: case for case in CASES}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """A tokenizer for each kind of objective."""
    folder = tmp_path_factory.mktemp("bases")
    bert = load_tokenizer(tiny_bert(folder / "bert", words=[*TALK, *WORDS]))
    special: dict[str, Callable[[], Path]] = {
        "seq2seq": lambda: tiny_t5(folder / "t5"),
        "chat": lambda: tiny_talker(folder / "talker", template=TEMPLATE),
    }
    return {kind: load_tokenizer(special[kind]()) if kind in special else bert for kind in BY_KIND}


def encode(case: Case, tokenizer: Any, rows: pa.Table | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """The encoded rows, and the targets of the case's rows."""
    objective = case.objective
    targets = objective.prepare_tokenizer(tokenizer, objective.build_targets(case.rows))
    return objective.encode(case.rows if rows is None else rows, tokenizer, 96, targets), targets


def figures(objective: Objective, statistics: np.ndarray, targets: Mapping[str, Any]) -> dict[str, float]:
    metrics = objective.compute_metrics(statistics.sum(0)[:, None], targets)
    return {name: float(figure[0]) for name, figure in metrics.items()}


def test_every_objective_with_prompting_has_a_case() -> None:
    assert set(BY_KIND) == {kind for kind in OBJECTIVES if OBJECTIVES[kind]().prompting is not None}
    assert Chat(generate=0).prompting is None  # the trained model has no answers to compare


@pytest.mark.parametrize("case", CASES, ids=list(BY_KIND))
def test_right_answers_are_right_and_unreadable_ones_are_wrong(case: Case, bases: Mapping[str, Any]) -> None:
    objective, rows = case.objective, case.rows
    prompting = objective.prompting
    assert prompting is not None
    tokens, targets = encode(case, bases[case.kind])
    check_prompting(objective, rows, tokens, targets)
    for text, question in zip(case.texts, prompting.build_questions(rows), strict=True):
        assert text in question

    judged = prompting.judge(prompting.build_answers(rows, targets), tokens, targets, rows)
    best = {
        name: (0.0 if metric.lower else 100.0 if name == "bleu" else 1.0) for name, metric in objective.metrics.items()
    }
    actual = figures(objective, judged.outcome.statistics, targets)
    undefined = {name for name, value in actual.items() if np.isnan(value)}
    assert undefined == ({"perplexity", "loss", "token_accuracy"} if case.kind == "chat" else set())
    assert {n: v for n, v in actual.items() if n not in undefined} == pytest.approx(
        {name: value for name, value in best.items() if name in actual and name not in undefined}, abs=1e-12
    )
    assert (judged.outcome.errors == 0).all() and not judged.invalid.any()

    garbage = prompting.judge([case.garbage] * len(rows), tokens, targets, rows)
    assert garbage.invalid.all() and (garbage.outcome.errors > 0).all()
    assert list(garbage.outcome.predictions) == [case.garbage.strip()] * len(rows)
    worst = figures(objective, garbage.outcome.statistics, targets)
    assert {name: worst[name] for name in case.worst} == pytest.approx(dict(case.worst))


@pytest.mark.parametrize("case", CASES, ids=list(BY_KIND))
def test_rows_of_a_table_without_any_are_no_answers(case: Case, bases: Mapping[str, Any]) -> None:
    prompting = case.objective.prompting
    assert prompting is not None
    rows = case.rows.slice(0, 0)
    assert prompting.build_questions(rows) == prompting.build_answers(rows, encode(case, bases[case.kind])[1]) == []


@pytest.mark.parametrize("case", CASES, ids=list(BY_KIND))
def test_a_registered_model_has_no_code_for_prompts(case: Case) -> None:
    assert not [name for name in serving_code(case.objective, adapter=False) if "prompting/" in name]


class Broken(LabelPrompting):
    """The words of a classifier, with one fault."""

    fault = ""

    def describe_task(self, targets: Mapping[str, Any]) -> str:
        task = super().describe_task(targets)
        return task.replace("bad", "") if self.fault == "choices" else task

    def build_questions(self, rows: pa.Table) -> list[str]:
        questions = super().build_questions(rows)
        return questions[1:] if self.fault == "questions" else questions

    def build_answers(self, rows: pa.Table, targets: Mapping[str, Any]) -> list[str]:
        answers = super().build_answers(rows, targets)
        return [" ", *answers[1:]] if self.fault == "answers" else answers

    def judge(self, answers: Any, tokens: pa.Table, targets: Mapping[str, Any], rows: pa.Table) -> Judgement:
        if self.fault == "lenient":
            answers = [answer or "bad" for answer in answers]
        if self.fault == "deaf":
            answers = [""] * len(answers)
        return super().judge(answers, tokens, targets, rows)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("choices", "does not name"),
        ("questions", "not one text for each row"),
        ("answers", "build_answers"),
        ("lenient", "an empty answer is not wrong"),
        ("deaf", "right answers are invalid"),
    ],
)
def test_words_that_break_a_rule_fail_with_the_rule(fault: str, message: str, bases: Mapping[str, Any]) -> None:
    class Faulty(TextClassification):
        @property
        def prompting(self) -> Prompting:
            prompting = Broken(self)
            object.__setattr__(prompting, "fault", fault)
            return prompting

    case = BY_KIND["text-classification"]
    tokens, targets = encode(case, bases[case.kind])
    with pytest.raises(AssertionError, match=message):
        check_prompting(Faulty(), case.rows, tokens, targets)


def _random_rows(kind: str, draw: np.random.Generator) -> dict[str, list[str]]:
    """Rows with random right answers, with those of the case's rows among them, so that the targets are the same."""
    count = 12
    label = ["Good", "bad", "two\nlines", "new"]
    if kind == "text-classification":
        return {"text": ["a"] * count, "label": draw.choice(label, count).tolist()}
    if kind == "multi-label-classification":
        sets = [[n for n in ("joy", "love, deep", "new") if draw.random() < 0.4] for _ in range(count)]
        return {"text": ["a"] * count, "labels": list(map(json.dumps, sets))}
    if kind == "regression":
        return {"text": ["a"] * count, "label": [repr(number) for number in draw.normal(3, 400, count).tolist()]}
    if kind == "token-classification":
        tags = [_random_tags(draw, ("PER", "LOC", "NEW")) for _ in range(count)]
        return {"tokens": [json.dumps(WORDS)] * count, "tags": list(map(json.dumps, tags))}
    if kind == "question-answering":
        spans = [_random_span(draw) for _ in range(count)]
        rights = [answered((text, CONTEXT.find(text))) if text else answered() for text in spans]
        return {"question": ["which?"] * count, "context": [CONTEXT] * count, "answers": rights}
    if kind == "seq2seq":
        return {"text": ["a"] * count, "target": [_random_text(draw) for _ in range(count)]}
    return {"messages": [talk("say", _random_text(draw)) for _ in range(count)]}


def _random_tags(draw: np.random.Generator, types: tuple[str, ...]) -> list[str]:
    tags: list[str] = []
    while len(tags) < len(WORDS):
        name, length = draw.choice(types), int(draw.integers(1, 3))
        tags += ["O"] if draw.random() < 0.5 else [f"B-{name}", *[f"I-{name}"] * (length - 1)]
    return tags[: len(WORDS)]


def _random_span(draw: np.random.Generator) -> str:
    words = CONTEXT.split()[1:]  # not the article alone
    start = int(draw.integers(len(words)))
    return "" if draw.random() < 0.3 else " ".join(words[start : start + int(draw.integers(2, 4))])


def _random_text(draw: np.random.Generator) -> str:
    return " ".join(draw.choice(TALK, int(draw.integers(1, 7))).tolist())


def _random_predictions(
    case: Case, tokens: pa.Table, targets: Mapping[str, Any], draw: np.random.Generator
) -> tuple[dict[str, Any], list[str]]:
    """A system's predictions for the 12 encoded rows, and the same in words."""
    count = 12
    if case.kind == "text-classification":
        scores = draw.random((count, 3))
        return {"scores": scores}, [targets["labels"][index] for index in scores.argmax(1)]
    if case.kind == "multi-label-classification":
        scores = draw.random((count, 2))
        chosen = [[name for name, score in zip(targets["labels"], row, strict=True) if score >= 0.5] for row in scores]
        return {"scores": scores}, list(map(json.dumps, chosen))
    if case.kind == "regression":
        standard = draw.normal(size=count)
        numbers = targets["mean"] + targets["deviation"] * standard
        return {"scores": standard}, [f"{number!r}" for number in numbers.tolist()]
    if case.kind == "token-classification":
        tags = [_random_tags(draw, ("PER", "LOC")) for _ in range(count)]
        index = {label: n for n, label in enumerate(targets["labels"])}
        while any(tag not in index for row in tags for tag in row):
            tags = [[tag if tag in index else "O" for tag in row] for row in tags]
            tags = [
                [tag if tag[0] != "I" or row[n - 1][1:] == tag[1:] else "O" for n, tag in enumerate(row)]
                for row in tags
            ]
        return {"said": [np.array([index[tag] for tag in row]) for row in tags]}, [_write_entities(row) for row in tags]
    texts = [_random_span(draw) if case.kind == "question-answering" else _random_text(draw) for _ in range(count)]
    if case.kind == "question-answering":
        return {"texts": texts}, [text or "unanswerable" for text in texts]
    if case.kind == "seq2seq":
        return {"text": texts}, texts
    nothing = dict.fromkeys(("nll", "counted", "right"), np.ones(count))
    return {**nothing, "said": texts, "reference": _list_last_turns(case, tokens)}, texts


def _write_entities(tags: list[str]) -> str:
    _, extents = tagging.join_words(WORDS)
    entities = tagging.find_entities(tags, "prefixed")
    return json.dumps(
        [
            {"text": " ".join(WORDS[e.start : e.end]), "type": e.type.lower(), "start": extents[e.start][0]}
            for e in entities
        ]
    )


def _list_last_turns(case: Case, tokens: pa.Table) -> list[str]:
    return [json.loads(value)[-1]["content"] for value in case.columns["messages"]]


@pytest.mark.parametrize("kind", list(BY_KIND))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_predictions_in_words_have_the_metrics_of_the_predictions(
    kind: str, bases: Mapping[str, Any], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    case = BY_KIND[kind]
    objective, prompting = case.objective, case.objective.prompting
    assert prompting is not None
    random_case = Case(objective, _random_rows(kind, draw), (), "", {})
    rows = random_case.rows
    tokens, targets = encode(case, bases[kind], rows)
    predictions, words = _random_predictions(random_case, tokens, targets, draw)
    outcome = objective.compute_outcome(tokens, predictions, targets, rows)
    judged = prompting.judge(words, tokens, targets, rows)
    assert not judged.invalid.any()
    expected, actual = (figures(objective, result.statistics, targets) for result in (outcome, judged.outcome))
    defined = {name: value for name, value in expected.items() if not np.isnan(actual[name])}
    assert {name: actual[name] for name in defined} == pytest.approx(defined, abs=1e-12, rel=1e-12)
    assert len(defined) >= 2 and prompting.metric in defined
    if kind != "chat":  # a trained model's error is its loss
        assert ((judged.outcome.errors == 0) == (outcome.errors == 0)).all()
        assert list(judged.outcome.references) == list(outcome.references)
