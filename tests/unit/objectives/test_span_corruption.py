from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.errors import ModelError
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.span_corruption import SpanCorruption, draw_noise_spans
from tests.tiny_bases import WORDS, tiny_bert, tiny_t5

OBJECTIVE = SpanCorruption()


def rows(texts: list[str]) -> pa.Table:
    ids = [f"train.txt:{n}" for n in range(1, len(texts) + 1)]
    return pa.table({"id": ids, "text": pa.array(texts, pa.string())})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("base"))


@settings(deadline=None, max_examples=80)
@given(st.integers(2, 300), st.floats(0.05, 0.6), st.floats(1, 8), st.integers(0, 9))
def test_spans_are_as_many_and_as_long_as_asked(length: int, noise: float, span: float, seed: int) -> None:
    spans = draw_noise_spans(length, noise, span, 1000, np.random.default_rng(seed))
    gone = min(max(round(length * noise), 1), length - 1)
    assert sum(stop - start for start, stop in spans) == gone
    assert len(spans) == min(max(round(gone / span), 1), gone, length - gone)
    # Something stays between two of them, so that no two are one.
    assert all(start > before for (_, before), (start, _) in pairwise(spans))
    assert 0 <= spans[0][0] < spans[-1][1] <= length


def test_every_token_may_be_left_out() -> None:
    spans = [draw_noise_spans(12, 0.2, 2, 10, np.random.default_rng(seed)) for seed in range(200)]
    found = {(start, stop) for one in spans for start, stop in one}
    assert found == {(start, start + 2) for start in range(11)}


def test_there_are_no_more_spans_than_sentinels() -> None:
    assert len(draw_noise_spans(500, 0.5, 1, 10, np.random.default_rng(0))) == 10
    assert draw_noise_spans(1, 0.15, 3, 10, np.random.default_rng(0)) == []


def test_inputs_and_labels_together_are_the_text(base: Path) -> None:
    objective, tokenizer = SpanCorruption(noise=0.4, span=2), load_tokenizer(base)
    texts = [" ".join(WORDS), "my card is lost", "money", ""]
    encoded = objective.encode(rows(texts), tokenizer, 64, {})
    first, end = tokenizer.convert_tokens_to_ids("<extra_id_0>"), tokenizer.eos_token_id
    sentinels = [first - n for n in range(10)]
    for training in (False, True):
        batch = objective.collate(encoded.to_pydict(), 0, training)
        for row, whole in enumerate(encoded["input_ids"].to_pylist()):
            shown = [one for one in batch["input_ids"][row].tolist() if one != 0]
            labels = [one for one in batch["labels"][row].tolist() if one != -100]
            assert (shown[-1], labels[-1]) == (end, end)
            gaps = [one for one in shown if one in sentinels]
            assert gaps == [one for one in labels if one in sentinels] == sentinels[: len(gaps)]
            spans: dict[int, list[int]] = {}
            for one in labels[:-1]:
                if one in sentinels:
                    current = spans.setdefault(one, [])
                else:
                    current.append(one)
            rebuilt = [inner for one in shown for inner in spans.get(one, [one])]
            assert rebuilt == whole
            hidden = [one for one in batch["hidden"][row].tolist() if one != -100]
            assert hidden == [one for span in spans.values() for one in span]


def test_a_long_text_goes_on_in_further_rows(base: Path) -> None:
    encoded = OBJECTIVE.encode(rows([" ".join(WORDS), "money"]), load_tokenizer(base), 9, {})
    assert encoded["id"].to_pylist() == ["train.txt:1"] * 3 + ["train.txt:2"]
    pieces = encoded["input_ids"].to_pylist()
    own = load_tokenizer(base)(" ".join(WORDS))["input_ids"]
    assert [one for piece in pieces[:3] for one in piece[:-1]] == own[:-1]
    assert {piece[-1] for piece in pieces} == {own[-1]}


def test_training_draws_anew_from_torch_and_evaluation_repeats_itself(base: Path) -> None:
    table = OBJECTIVE.encode(rows([" ".join(WORDS)] * 4), load_tokenizer(base), 64, {}).to_pydict()
    state = torch.get_rng_state()
    first, second = (OBJECTIVE.collate(table, 0, training=True)["labels"].tolist() for _ in range(2))
    assert first != second
    torch.set_rng_state(state)
    assert OBJECTIVE.collate(table, 0, training=True)["labels"].tolist() == first
    fixed = OBJECTIVE.collate(table, 0)["labels"]
    assert torch.equal(fixed, OBJECTIVE.collate(table, 0)["labels"])
    assert (fixed == fixed[0]).all()


def test_figures_are_those_of_the_text_that_was_left_out(base: Path) -> None:
    tokenizer, model = load_tokenizer(base), OBJECTIVE.load_model(base, {}).eval()
    tokens = OBJECTIVE.encode(rows([" ".join(WORDS), "my card is lost"]), tokenizer, 64, {})
    raw, _ = Reader(OBJECTIVE, 0, torch.device("cpu"), tokenizer).predict(model, tokens)
    outcome = OBJECTIVE.compute_outcome(tokens, raw, {})
    asked = [{"text": "one"}, {"text": "two"}]
    assert [answer["text"] for answer in OBJECTIVE.build_answers(tokens, raw, {}, asked)] == ["one", "two"]
    batch = OBJECTIVE.collate(tokens.to_pydict(), 0)
    names = ("input_ids", "attention_mask", "labels")
    with torch.no_grad():
        theirs = model(**{name: batch[name] for name in names})
        total, count = OBJECTIVE.compute_loss(model, batch)
    assert total.item() / count == pytest.approx(theirs.loss.item(), rel=1e-5)
    at = batch["hidden"] != -100
    loss = torch.nn.functional.cross_entropy(theirs.logits[at], batch["hidden"][at]).item()
    figures = OBJECTIVE.compute_metrics(outcome.statistics.sum(0)[:, None], {})
    assert outcome.statistics[:, 1].sum() == at.sum() < count
    assert figures["loss"][0] == pytest.approx(loss, rel=1e-5)
    assert figures["perplexity"][0] == pytest.approx(math.exp(loss), rel=1e-5)
    right = (theirs.logits[at].argmax(-1) == batch["hidden"][at]).float().mean().item()
    assert figures["token_accuracy"][0] == pytest.approx(right)


def test_gaps_are_filled_by_their_numbers(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    words = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<extra_id_0>", "<extra_id_1>", "lost", "card")}
    raw = {"filled": [[0, words["<extra_id_1>"], words["lost"], words["<extra_id_0>"], words["card"], 1, 0]]}
    tokens = OBJECTIVE.encode(rows(["my <extra_id_0> is <extra_id_1> <extra_id_2>"]), tokenizer, 16, {}, labelled=False)
    asked = [{"text": "my <extra_id_0> is <extra_id_1> <extra_id_2>"}]
    [answer] = OBJECTIVE.build_answers(tokens, OBJECTIVE.decode_generated(raw, tokenizer), {}, asked)
    assert answer == {"text": "my card is lost ", "fills": ["card", "lost", ""]}
    reader = Reader(OBJECTIVE, 0, torch.device("cpu"), tokenizer)
    model = OBJECTIVE.load_model(base, {}).eval()
    [generated, plain] = reader.answer(model, [*asked, {"text": "my card"}], {}, 16)
    assert generated["text"].startswith("my ")
    assert "extra_id" not in generated["text"]
    assert plain == {"text": "my card", "fills": []}


def test_a_base_without_sentinels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no sentinels"):
        OBJECTIVE.encode(rows(["a"]), load_tokenizer(tiny_bert(tmp_path)), 8, {})


def test_it_learns(base: Path) -> None:
    tokenizer, model = load_tokenizer(base), OBJECTIVE.load_model(base, {})
    tokens = OBJECTIVE.encode(rows([" ".join(WORDS)] * 8), tokenizer, 64, {}).to_pydict()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss, count = OBJECTIVE.compute_loss(model, OBJECTIVE.collate(tokens, 0, training=True))
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item() / count)
    assert losses[-1] < losses[0] / 3
