from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch

from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.curation.step import Verdict
from hone.errors import ConfigError, DataError
from hone.methods.lora import Lora
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.shared import squad
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.progress import ignore
from tests.tiny_bases import tiny_bert

OBJECTIVE = QuestionAnswering(stride=4)
TARGETS = {"no_answer": True}
CONTEXT = "the red card is lost the blue card is broken"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def answers(*given: tuple[str, int]) -> dict[str, list[Any]]:
    return {"text": [text for text, _ in given], "answer_start": [start for _, start in given]}


def rows(*given: tuple[str, str, dict[str, list[Any]]]) -> pa.Table:
    questions, contexts, right = zip(*given, strict=True)
    ids = [f"dev.json:{n}" for n in range(len(given))]
    columns = {"id": ids, "question": questions, "context": contexts, "answers": list(map(json.dumps, right))}
    return pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()})


@pytest.mark.parametrize(
    "given",
    [
        answers(("red card", 4), ("red", 4)),
        [{"text": "red card", "answer_start": 4}, {"text": "red", "answer_start": 4}],
        json.dumps(answers(("red card", 4), ("red", 4))),
    ],
)
def test_answers_of_every_form_become_one(given: Any) -> None:
    values = {"question": "which card", "context": CONTEXT, "answers": given}
    assert OBJECTIVE.normalize_row(values)["answers"] == answers(("red card", 4), ("red", 4))


@pytest.mark.parametrize("name", ["question", "context"])
@pytest.mark.parametrize("value", [1.5, ["red"], {"value": "red"}])
def test_a_question_or_a_context_that_is_no_text_is_refused(name: str, value: object) -> None:
    values = {"question": "which card", "context": CONTEXT, "answers": [{"text": ["x"]}]}
    with pytest.raises(ValueError, match=f"{name}: is not a text"):
        OBJECTIVE.normalize_row({**values, name: value})


def test_one_answer_alone_and_none() -> None:
    values = {"question": "q", "context": CONTEXT}
    one = {"text": "red", "answer_start": 4}
    assert OBJECTIVE.normalize_row({**values, "answers": one})["answers"] == answers(("red", 4))
    assert OBJECTIVE.normalize_row({**values, "answers": []})["answers"] == answers()
    assert OBJECTIVE.normalize_row({**values, "answers": [one], "is_impossible": True})["answers"] == answers()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answers(("blue", 4)), "answers: at 4 the context has 'red ', not the answer 'blue'"),
        (answers(("red", 0)), "not the answer 'red'; that is at 4"),
        (answers(("card", 400)), "answers: at 400 the context has ''"),
        (answers(("card", -1)), "answers: answer_start 0 is not an offset but -1"),
        (answers(("card", "8")), "answers: answer_start 0 is not an offset but '8'"),  # type: ignore[arg-type]
        (answers(("", 4)), "answers: text 0 is not text but ''"),
        ({"text": ["card"], "answer_start": []}, "answers: neither"),
        ("card", "answers: not JSON"),
        (7, "answers: neither"),
        (None, "answers: neither"),
    ],
)
def test_answers_that_are_not_right_are_refused(given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        OBJECTIVE.normalize_row({"question": "q", "context": CONTEXT, "answers": given})


@pytest.mark.parametrize(("start", "unit"), [(2, "characters"), (3, "utf-16"), (5, "bytes")])
def test_what_answer_starts_count_shows_where_the_answers_are(start: int, unit: str) -> None:
    reader = OBJECTIVE.start_reading()
    row = {"question": "where?", "context": "\U0001f600 Paris is nice", "answers": answers(("Paris", start))}
    assert reader.read(row)["answers"] == {"text": ["Paris"], "answer_start": [2]}
    note = {f"rows whose answer starts count {unit}, converted": 1}
    assert reader.finish() == ({} if unit == "characters" else note)


def test_other_rows_are_left_to_ingest_and_a_whole_file_in_a_row_is_told() -> None:
    assert OBJECTIVE.normalize_row({"text": "a"}) == {"text": "a"}
    with pytest.raises(ValueError, match=r"set ingest\.source\.format: squad"):
        OBJECTIVE.normalize_row({"data": [], "version": "1.1"})


def test_targets_say_whether_questions_may_have_no_answer() -> None:
    asked = ("q", CONTEXT)
    assert OBJECTIVE.build_targets(rows((*asked, answers(("red", 4))))) == {"no_answer": False}
    assert OBJECTIVE.build_targets(rows((*asked, answers(("red", 4))), (*asked, answers()))) == {"no_answer": True}
    with pytest.raises(DataError, match="no question with an answer"):
        OBJECTIVE.build_targets(rows((*asked, answers())))


def curated(step: Any, table: pa.Table) -> Verdict:
    verdict: Verdict = step.apply(table, OBJECTIVE, ignore)
    return verdict


def test_answers_are_pointed_to_again_after_their_context_was_rewritten() -> None:
    context = "In  1868,\u200b the caf\u00c3\u00a9&nbsp;du Nord; a&amp;b\r\nthe caf\u00c3\u00a9 du Sud, 1868."
    given = rows(
        ("When  was it?", context, answers(("1868", context.rindex("1868")), ("1868", 4))),
        ("Where?", context, answers(("caf\u00c3\u00a9", context.rindex("caf")))),
        ("What?", context, answers(("a&amp;b\r\nthe", context.index("a&")))),
        ("None?", context, answers()),
    )
    verdict = curated(Normalize(), given)
    assert verdict.reasons == [""] * 4
    for row in verdict.rows.to_pylist():
        right = json.loads(row["answers"])
        for text, start in zip(right["text"], right["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text
    first, second, *_ = (json.loads(value) for value in verdict.rows["answers"].to_pylist())
    mended = verdict.rows["context"][0].as_py()
    assert first["answer_start"] == [mended.rindex("1868"), mended.index("1868")]
    assert second == answers(("café", mended.rindex("café")))
    assert verdict.rows["question"][0].as_py() == "When was it?"


def test_a_row_whose_answer_was_rewritten_away_is_dropped() -> None:
    spaced = "a  b then a b"
    given = rows(
        ("mail?", "ask ann@example.org now", answers(("ann", 4))),
        ("mail?", "ask ann@example.org now", answers(("ann@example.org", 4))),
        ("which?", spaced, answers(("a  b", 0))),
    )
    redacted = curated(Redact(), given)
    assert redacted.reasons == ["an answer is no longer in the context", "", ""]
    assert json.loads(redacted.rows["answers"][1].as_py()) == answers(("<EMAIL>", 4))
    # Two places are alike now that were not before: which one was meant cannot be told.
    assert curated(Normalize(), given).reasons == ["", "", "an answer is no longer in the context"]


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2"])
@pytest.mark.parametrize("stride", [0, 7])
def test_windows_are_those_of_the_tokenizer_itself(name: str, stride: int, shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "tokenizers" / name / "hf")
    question, context = (
        "Which rivers, exactly?",
        "The naïve Rhine (1,233 km) and the Main — 527 km — meet at Mainz. " * 5,
    )
    objective = QuestionAnswering(stride=stride)
    encoded = objective.encode(rows((question, context, answers())), tokenizer, 40, TARGETS)
    expected = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=40,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert encoded["input_ids"].to_pylist() == expected["input_ids"]
    for at, row in enumerate(encoded.to_pylist()):
        sides = expected.sequence_ids(at)
        inside = [place for place, side in enumerate(sides) if side == 1]
        assert row["begin"] == inside[0]
        offsets = [tuple(expected["offset_mapping"][at][place]) for place in inside]
        assert list(zip(row["starts"], row["ends"], strict=True))[1:] == offsets[1:]
        if name.startswith("bert"):
            assert row["types"] == expected["token_type_ids"][at]


def test_an_answer_is_learned_where_it_is_whole_and_nothing_where_it_is_not(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    given = rows(
        ("which card", CONTEXT, answers(("blue card", CONTEXT.index("blue")), ("red", 4))),
        ("which", CONTEXT, answers()),
    )
    encoded = OBJECTIVE.encode(given, tokenizer, 11, TARGETS).to_pylist()
    assert [row["id"] for row in encoded] == ["dev.json:0"] * 3 + ["dev.json:1"] * 2
    learned = [tokenizer.decode(row["input_ids"][row["first"] : row["last"] + 1]) for row in encoded]
    assert learned == ["[CLS]", "blue card", "blue card", "[CLS]", "[CLS]"]
    assert {row["cls"] for row in encoded} == {0}
    assert all(len(row["input_ids"]) <= 11 for row in encoded)
    assert sum(row["lost"] for row in encoded) == 0
    covered = {(row["starts"][0], row["ends"][-1]) for row in encoded[:3]}
    assert min(covered)[0] == 0
    assert max(end for _, end in covered) == len(CONTEXT)


def test_an_answer_that_is_no_longer_in_its_context_is_not_learned(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    lost, other = answers(("gone", -1)), answers(("gone", -1), ("red", 4))
    encoded = OBJECTIVE.encode(rows(("which", CONTEXT, lost), ("which", CONTEXT, other)), tokenizer, 64, TARGETS)
    learned = [tokenizer.decode(row["input_ids"][row["first"] : row["last"] + 1]) for row in encoded.to_pylist()]
    assert learned == ["[CLS]", "red"]


def test_a_long_question_is_cut_and_counted_once(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    encoded = OBJECTIVE.encode(rows(("where " * 20, CONTEXT, answers(("red", 4)))), tokenizer, 13, TARGETS)
    assert [len(ids) for ids in encoded["input_ids"].to_pylist()][:-1] == [13] * (len(encoded) - 1)
    assert encoded["begin"].to_pylist() == [7] * len(encoded)
    assert encoded["lost"].to_pylist() == [15, *[0] * (len(encoded) - 1)]
    with pytest.raises(ConfigError, match="4 tokens do not hold a question and a context"):
        OBJECTIVE.encode(rows(("a", "b", answers())), tokenizer, 4, TARGETS)


def test_what_is_read_is_the_best_span_there_is(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    torch.manual_seed(1)
    objective = QuestionAnswering(stride=4, max_answer=3)
    model = objective.load_model(bert, TARGETS).eval()
    given = rows(
        ("which card is lost", CONTEXT, answers(("red", 4))), ("my", "the card", answers()), ("a", "", answers())
    )
    tokens = objective.encode(given, tokenizer, 16, TARGETS)
    columns = {name: tokens[name].to_pylist() for name in tokens.column_names}
    batch = objective.collate(columns, tokenizer.pad_token_id)
    read = objective.predict_batch(model, batch)
    with torch.no_grad():
        logits = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    for row, start, end in zip(range(len(tokens)), logits.start_logits, logits.end_logits, strict=True):
        begin, count = columns["begin"][row], len(columns["starts"][row])
        every = [
            (float(start[begin + a] + end[begin + b]), (a, b))
            for a in range(count)
            for b in range(a, min(count, a + 3))
        ]
        if not every:
            assert read["span"][row].tolist() == [-1, -1]
            assert read["scores"][row][0] == 0
            continue
        best, span = max(every)
        assert read["best"][row] == pytest.approx(best, abs=1e-5)
        assert tuple(read["span"][row].tolist()) == span
        assert read["null"][row] == pytest.approx(float(start[0] + end[0]), abs=1e-5)
        kept = [0, *range(begin, begin + count)]
        sure = [torch.softmax(of[kept], 0) for of in (start, end)]
        expected = [sure[0][1 + span[0]] * sure[1][1 + span[1]], sure[0][0] * sure[1][0]]
        assert read["scores"][row].tolist() == pytest.approx([float(one) for one in expected], abs=1e-5)


def test_padding_changes_neither_loss_nor_answer(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    torch.manual_seed(1)
    model = OBJECTIVE.load_model(bert, TARGETS).eval()
    given = rows(("which", CONTEXT, answers(("red", 4))), ("my", "the card", answers()))
    tokens = OBJECTIVE.encode(given, tokenizer, 32, TARGETS)
    columns = {name: tokens[name].to_pylist() for name in tokens.column_names}
    parts = [OBJECTIVE.collate({name: [of[at]] for name, of in columns.items()}, 0) for at in range(2)]
    whole, count = OBJECTIVE.compute_loss(model, OBJECTIVE.collate(columns, 0))
    assert count == 2
    assert whole.item() == pytest.approx(sum(OBJECTIVE.compute_loss(model, part)[0].item() for part in parts), rel=1e-5)
    assert OBJECTIVE.predict_batch(model, OBJECTIVE.collate(columns, 0))["scores"][1] == pytest.approx(
        OBJECTIVE.predict_batch(model, parts[1])["scores"][0], abs=1e-6
    )


def test_an_adapter_moves_the_head_and_merges_into_the_same_answers(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    torch.manual_seed(0)
    lora = Lora(rank=2, target_modules=("query", "value"))
    model = lora.prepare(OBJECTIVE.load_model(bert, TARGETS)).eval()
    given = rows(("which", CONTEXT, answers(("red", 4))), ("my", "the card", answers()))
    tokens = OBJECTIVE.encode(given, tokenizer, 32, TARGETS)
    batch = OBJECTIVE.collate({name: tokens[name].to_pylist() for name in tokens.column_names}, 0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(3):
        loss, _ = OBJECTIVE.compute_loss(model, batch)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    before = OBJECTIVE.predict_batch(model, batch)
    after = OBJECTIVE.predict_batch(lora.merge(model), batch)
    for name in ("scores", "best", "null", "span"):
        assert after[name] == pytest.approx(before[name], abs=1e-4)


def test_segments_tell_question_and_context_apart(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    torch.manual_seed(1)
    model = OBJECTIVE.load_model(bert, TARGETS).eval()
    tokens = OBJECTIVE.encode(rows(("my card", "the card", answers())), tokenizer, 32, TARGETS)
    batch = OBJECTIVE.collate({name: tokens[name].to_pylist() for name in tokens.column_names}, 0)
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    other = OBJECTIVE.predict_batch(model, batch | {"token_type_ids": torch.zeros_like(batch["token_type_ids"])})
    assert abs(other["null"][0] - OBJECTIVE.predict_batch(model, batch)["null"][0]) > 1e-3


class TestOutcome:
    """What is said of three questions, the first of which has two windows."""

    given = rows(
        ("which card", CONTEXT, answers(("blue card", 25), ("the blue card", 21))),
        ("which", "the red card", answers()),
        ("where", "my money is lost", answers(("lost", 12))),
    )

    @pytest.fixture
    def tokens(self, bert: Path) -> pa.Table:
        found = OBJECTIVE.encode(self.given, load_tokenizer(bert), 12, TARGETS)
        assert found["id"].to_pylist() == ["dev.json:0"] * 2 + ["dev.json:1", "dev.json:2"]
        return found

    raw: ClassVar[dict[str, Any]] = {
        "span": np.array([[0, 1], [2, 3], [1, 2], [0, 1]]),
        "best": np.array([3.0, 4.0, 1.0, 2.0]),
        "null": np.array([9.0, 0.0, 1.5, -1.0]),
        "scores": np.array([[0.1, 0.8], [0.6, 0.1], [0.2, 0.3], [0.9, 0.05]], np.float32),
    }

    def test_the_best_window_answers(self, tokens: pa.Table) -> None:
        outcome = OBJECTIVE.compute_outcome(tokens, self.raw, TARGETS, self.given)
        assert outcome.predictions == ["blue card", "no answer", "my money"]
        assert outcome.references == ["blue card | the blue card", "no answer", "lost"]
        assert outcome.confidences is not None
        assert outcome.confidences.tolist() == pytest.approx([0.6, 0.3, 0.9])
        assert outcome.errors.tolist() == pytest.approx([0, 0, 1.8])

    def test_figures_of_answered_and_unanswered_questions(self, tokens: pa.Table) -> None:
        texts = ["the blue card", "", "is lost"]
        outcome = OBJECTIVE.compute_outcome(tokens, {"texts": texts}, TARGETS, self.given)
        sums = outcome.statistics.sum(0)[:, None]
        found = {name: float(of[0]) for name, of in OBJECTIVE.compute_metrics(sums, TARGETS).items()}
        assert found == pytest.approx(
            {
                "f1": (1 + 1 + 2 / 3) / 3,
                "exact_match": 2 / 3,
                "has_answer_f1": (1 + 2 / 3) / 2,
                "has_answer_exact_match": 1 / 2,
                "no_answer_accuracy": 1,
            }
        )
        assert set(OBJECTIVE.compute_metrics(sums, {"no_answer": False})) == {"f1", "exact_match"}
        assert outcome.errors.tolist() == pytest.approx([0, 0, 2 - 2 / 3])

    def test_nothing_is_no_answer_where_training_has_no_such_question(self, tokens: pa.Table) -> None:
        outcome = OBJECTIVE.compute_outcome(tokens, self.raw, {"no_answer": False}, self.given)
        assert outcome.predictions[1] == "red card"

    def test_the_threshold_moves_what_is_no_answer(self, tokens: pa.Table) -> None:
        strict = QuestionAnswering(stride=4, null_threshold=0.6)
        assert strict.compute_outcome(tokens, self.raw, TARGETS, self.given).predictions[1] == "red card"

    def test_the_threshold_is_chosen_on_validation_rows(
        self, tokens: pa.Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Margins of no answer: -4, 0.5 and -3. The second question has none, the third's span is wrong."""
        assert OBJECTIVE.tune_targets(tokens, self.raw, TARGETS) == {**TARGETS, "null_threshold": 0.0}  # too few rows
        monkeypatch.setattr(squad, "MIN_ROWS", 1)
        strict = QuestionAnswering(stride=4, null_threshold=0.6)
        tuned = strict.tune_targets(tokens, self.raw, TARGETS)
        assert tuned == {**TARGETS, "null_threshold": pytest.approx(-1.25)}
        assert strict.compute_outcome(tokens, self.raw, tuned, self.given).predictions[1] == "no answer"
        fixed = QuestionAnswering(stride=4, tune_threshold=False)
        for objective, raw, targets in (
            (fixed, self.raw, TARGETS),
            (strict, {"texts": ["a", "", "b"]}, TARGETS),
            (strict, self.raw, {"no_answer": False}),
        ):
            assert objective.tune_targets(tokens, raw, targets) == targets

    def test_a_caller_is_told_where_the_answer_stands(self, tokens: pa.Table) -> None:
        asked = self.given.select(["question", "context"]).to_pylist()
        told = OBJECTIVE.build_answers(tokens, self.raw, TARGETS, asked)
        for row, answer in zip(asked, told, strict=True):
            if answer["answer"]:
                assert row["context"][answer["start"] : answer["end"]] == answer["answer"]
        assert (told[1]["answer"], told[1]["start"], told[1]["end"]) == ("", -1, -1)
        assert told[1]["score"] == told[1]["no_answer"] == pytest.approx(0.3)
        assert told[2]["score"] == pytest.approx(0.9)


def test_the_rivals_know_no_more_than_words() -> None:
    context = "Ann lives in Oslo. Bob's dog barks! The cat of Ann sleeps\nin Rome"
    table = rows(("Where does the dog of Bob bark?", context, answers()), ("x", "", answers()))
    found = OBJECTIVE.baseline_predictions(table, table, TARGETS, table)
    assert found == {"overlap": {"texts": ["Bob's dog barks!", ""]}, "no_answer": {"texts": ["", ""]}}
    assert set(OBJECTIVE.baseline_predictions(table, table, {"no_answer": False}, table)) == {"overlap"}


def test_a_served_model_answers_any_text(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    torch.manual_seed(0)
    model = OBJECTIVE.load_model(bert, {"no_answer": False}).eval()
    reader = Reader(OBJECTIVE, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    asked = [
        {"question": "which card", "context": " ".join([CONTEXT] * 4)},
        {"question": "", "context": "lost"},
        {"question": "which", "context": ""},
    ]
    answers = reader.answer(model, asked, {"no_answer": False}, 16)
    for row, answer in zip(asked, answers, strict=True):
        assert row["context"][max(0, answer["start"]) : max(0, answer["end"])] == answer["answer"]
    assert answers[0]["answer"]
    assert answers[1]["answer"] == "lost"
    assert (answers[2]["answer"], answers[2]["start"]) == ("", -1)


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2"])
def test_every_answer_of_xquad_is_pointed_to_after_curation_and_tokenization(
    name: str, shared: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    from hone.sources.files import Files
    from hone.sources.ingest import ingest

    source = Files(paths=[str(shared / "datasets/xquad/*.json")], format="squad")
    facts = ingest(
        source,
        tmp_path,
        columns=OBJECTIVE.columns,
        rename={},
        keep=["question_id"],
        max_refused=0,
        shape=OBJECTIVE.normalize_row,
    ).facts
    assert (facts["rows"], facts["refused"]) == (1190, 0)
    verdict = curated(Normalize(form="NFKC"), pq.read_table(tmp_path / "rows.parquet"))
    assert verdict.notes["spacing"] > 50
    assert verdict.reasons == [""] * 1190
    table = verdict.rows
    tokenizer = load_tokenizer(shared / "tokenizers" / name / "hf")
    tokens = QuestionAnswering(stride=64).encode(table, tokenizer, 160, OBJECTIVE.build_targets(table))
    assert len(tokens) > 1500
    contexts = dict(zip(table["id"].to_pylist(), table["context"].to_pylist(), strict=True))
    right = {
        name: json.loads(value)
        for name, value in zip(table["id"].to_pylist(), table["answers"].to_pylist(), strict=True)
    }
    found = set()
    for row in tokens.to_pylist():
        if row["first"] == row["cls"]:
            continue
        text, start = right[row["id"]]["text"][0], right[row["id"]]["answer_start"][0]
        context = contexts[row["id"]]
        assert context[start : start + len(text)] == text
        begin, end = row["starts"][row["first"] - row["begin"]], row["ends"][row["last"] - row["begin"]]
        # A token may hold more than the answer's last letters: 2,70 in 2,700.
        assert begin <= start
        assert end >= start + len(text)
        assert end - begin - len(text) <= 3
        found.add(row["id"])
    assert len(found) == 1190
