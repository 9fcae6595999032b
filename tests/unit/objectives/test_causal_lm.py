from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from hone.errors import DataError, ModelError
from hone.objectives.causal_lm import CausalLM
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer, to_list_array
from tests.tiny_bases import tiny_bert, tiny_llama

OBJECTIVE = CausalLM()


def rows(texts: list[str | None], name: str = "train.txt") -> pa.Table:
    ids = [f"{name}:{n}" for n in range(1, len(texts) + 1)]
    return pa.table({"id": ids, "text": pa.array(texts, pa.string())})


def reader(base: Path, objective: CausalLM = OBJECTIVE) -> Reader:
    tokenizer = load_tokenizer(base)
    return Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)


def figures(objective: CausalLM, model: Any, tokens: pa.Table, read: Reader) -> dict[str, float]:
    raw, _ = read.predict(model, tokens)
    outcome = objective.compute_outcome(tokens, raw, {})
    return {
        name: float(of[0]) for name, of in objective.compute_metrics(outcome.statistics.sum(0)[:, None], {}).items()
    }


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture(scope="module")
def tales(shared: Path) -> list[str]:
    """Five stories, parted by <|endoftext|> on a line of its own; the lines around it belong to none."""
    text = (shared / "datasets" / "tokenizer_fixtures_cs336" / "tinystories_sample.txt").read_text("utf8")
    return [tale for tale in map(str.strip, text.split("<|endoftext|>")) if tale]


def test_it_takes_text_alone() -> None:
    assert (CausalLM.columns, CausalLM.text, CausalLM.label, OBJECTIVE.main_metric) == (
        ("text",),
        ("text",),
        "",
        "perplexity",
    )


def test_an_end_closes_each_document_and_a_long_one_is_cut_into_rows_that_lose_nothing(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    texts = ["my card", "", "where the " * 10, "money"]
    encoded = OBJECTIVE.encode(rows(texts), tokenizer, 8, {})
    assert encoded.schema == pa.schema(
        {
            "id": pa.string(),
            "input_ids": pa.list_(pa.int32()),
            "closed": pa.int32(),
            "bytes": pa.int64(),
            "lost": pa.int32(),
        }
    )
    own = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    found = encoded["input_ids"].to_pylist()
    assert encoded["id"].to_pylist() == ["train.txt:1", "train.txt:2", *["train.txt:3"] * 3, "train.txt:4"]
    assert [found[0], found[1], found[5]] == [own[0], own[1], own[3]]
    # 21 tokens in rows of 8: each begins with the last token of the one before.
    assert [len(piece) for piece in found[2:5]] == [8, 8, 7]
    assert found[2] + found[3][1:] + found[4][1:] == own[2]
    assert (found[3][0], found[4][0]) == (found[2][-1], found[3][-1])
    assert encoded["closed"].to_pylist() == [1, 1, 0, 0, 1, 1]
    assert encoded["bytes"].to_pylist() == [7, 0, 100, 0, 0, 5]
    assert encoded["lost"].to_pylist() == [0] * 6


def test_a_long_document_is_truncated_where_asked_and_its_bytes_are_those_of_what_stays(stories: Path) -> None:
    tokenizer = load_tokenizer(stories)
    text = "Der Bär aß Öl. " * 8
    whole = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    encoded = CausalLM(long_documents="truncate").encode(rows([text, "a"]), tokenizer, 16, {})
    assert encoded["input_ids"].to_pylist()[0] == whole[:16]
    # The end, which does not fit either, is no token of the text.
    assert encoded["lost"].to_pylist() == [len(whole) - 1 - 16, 0]
    assert encoded["closed"].to_pylist() == [0, 1]
    assert encoded["bytes"].to_pylist()[0] == len(tokenizer.decode(whole[1:16]).encode())


def test_a_tokenizer_without_an_end_and_a_row_without_a_text_are_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no end-of-text token"):
        OBJECTIVE.encode(rows(["a"]), load_tokenizer(tiny_bert(tmp_path)), 8, {})
    with pytest.raises(DataError, match=r"row train.txt:2: a row has no text"):
        OBJECTIVE.encode(rows(["a", None]), load_tokenizer(llama), 8, {})


def test_labels_are_the_tokens_but_for_first_ones_and_padding() -> None:
    packed = OBJECTIVE.collate({"input_ids": [[5, 6, 7, 8, 9], [4, 3]], "documents": [[3, 2], [2]]}, pad_id=9)
    assert packed["labels"].tolist() == [[-100, 6, 7, -100, 9], [-100, 3, -100, -100, -100]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    single = OBJECTIVE.collate({"input_ids": [[5, 6, 1], [4, 3]], "closed": [1, 0], "bytes": [2, 1]}, pad_id=9)
    assert set(single) == {"input_ids", "labels", "text_labels"}
    assert single["labels"].tolist() == [[-100, 6, 1], [-100, 3, -100]]
    assert single["text_labels"].tolist() == [[-100, 6, -100], [-100, 3, -100]]


def _models(kind: str, attention: str) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {"vocab_size": 40, "initializer_range": 0.3, "attn_implementation": attention}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **small)).eval()
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **small)
    ).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_loss_of_each_document_is_the_same_packed_and_alone(kind: str, attention: str) -> None:
    model = _models(kind, attention)
    random = np.random.default_rng(0)
    documents = [random.integers(2, 40, size).tolist() for size in (3, 9, 17, 30, 2, 12, 25)]
    tokens = pa.table(
        {
            "id": [f"d{n}" for n in range(7)],
            "input_ids": to_list_array(documents),
            "closed": pa.array([0] * 7, pa.int32()),
            "bytes": pa.array([1] * 7),
            "lost": pa.array([0] * 7, pa.int32()),
        }
    )
    alone = OBJECTIVE.predict_batch(model, OBJECTIVE.collate(tokens.to_pydict(), 0))["nll"]
    batches = OBJECTIVE.pack_rows(tokens, 48)
    assert batches is not None
    rows = pa.concat_tables(batches).to_pydict()
    assert len(rows["id"]) == 3
    batch = OBJECTIVE.collate(rows, 0, training=True)
    with torch.no_grad():
        total, count = OBJECTIVE.compute_loss(model, batch)
    assert count == sum(len(document) - 1 for document in documents)
    assert total.item() == pytest.approx(alone.sum(), abs=1e-4 * count)
    # Document by document: each one's labels alone.
    places = {tuple(document): place for place, document in enumerate(documents)}
    for row, lengths in enumerate(rows["documents"]):
        start = 0
        for length in lengths:
            place = places[tuple(rows["input_ids"][row][start : start + length])]
            mine = torch.full_like(batch["labels"], -100)
            mine[row, start : start + length] = batch["labels"][row, start : start + length]
            with torch.no_grad():
                nll, own = OBJECTIVE.compute_loss(model, {**batch, "labels": mine})
            assert own == length - 1
            assert nll.item() / own == pytest.approx(alone[place] / own, abs=1e-4)
            start += length


def test_without_packing_there_is_none() -> None:
    assert CausalLM(packing=False).pack_rows(pa.table({"input_ids": [[1]]}), 8) is None


def test_a_decoder_whose_head_is_not_in_its_files_is_refused(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(llama).save_pretrained(tmp_path)
    load_tokenizer(llama).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="lm_head"):
        OBJECTIVE.load_model(tmp_path, {})


def test_the_loss_on_the_stories_is_the_one_that_is_known(stories: Path, tales: list[str]) -> None:
    """Five documents, each from <s> to its last character: 1,804 tokens are predicted, the end that is set is none."""
    read = reader(stories)
    model = OBJECTIVE.load_model(stories, {}).eval()
    assert len(tales) == 5
    tokens = OBJECTIVE.encode(rows(tales, "tales.txt"), read.tokenizer, 512, {})
    outcome = OBJECTIVE.compute_outcome(tokens, read.predict(model, tokens)[0], {})
    assert outcome.statistics[:, 1].sum() == 1804
    found = figures(OBJECTIVE, model, tokens, read)
    assert found["loss"] == pytest.approx(1.266, abs=0.005)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    size = sum(len(tale.encode()) for tale in tales)
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * 1804 / size / math.log(2))
    assert "old_perplexity" not in found
    # In rows of 64 a token sees less before it, and the same tokens are counted.
    short = OBJECTIVE.encode(rows(tales, "tales.txt"), read.tokenizer, 64, {})
    pieces = OBJECTIVE.compute_outcome(short, read.predict(model, short)[0], {})
    assert len(short) > 25
    assert pieces.statistics.shape == (5, 6)
    assert pieces.statistics[:, 1].tolist() == outcome.statistics[:, 1].tolist()
    assert pieces.statistics[:, 2].tolist() == outcome.statistics[:, 2].tolist()
    assert found["loss"] < figures(OBJECTIVE, model, short, read)["loss"] < found["loss"] + 0.4


def test_the_loss_is_that_of_transformers(stories: Path, tales: list[str]) -> None:
    model, tokenizer = OBJECTIVE.load_model(stories, {}).eval(), load_tokenizer(stories)
    tokens = OBJECTIVE.encode(rows(tales[:2]), tokenizer, 512, {})
    batch = OBJECTIVE.collate(tokens.to_pydict(), model.config.pad_token_id)
    with torch.no_grad():
        total, count = OBJECTIVE.compute_loss(model, batch)
        theirs = 0.0
        for ids in tokens["input_ids"].to_pylist():
            one = torch.tensor([ids])
            theirs += model(input_ids=one, labels=one).loss.item() * (len(ids) - 1)
    assert count == sum(len(ids) - 1 for ids in tokens["input_ids"].to_pylist())
    assert total.item() == pytest.approx(theirs, rel=1e-5)


def test_rows_that_do_not_fit_at_once_are_read_in_parts(
    stories: Path, tales: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone.objectives.shared import plain_text

    read, model = reader(stories), OBJECTIVE.load_model(stories, {}).eval()
    tokens = OBJECTIVE.encode(rows(tales), read.tokenizer, 128, {})
    whole = read.predict(model, tokens)[0]
    monkeypatch.setattr(plain_text, "_MAX_LOGITS", 1)
    apart = read.predict(model, tokens)[0]
    assert np.allclose(whole["nll"], apart["nll"], rtol=1e-5)


def test_the_old_domain_has_its_own_figure(stories: Path, tales: list[str]) -> None:
    objective = CausalLM(old_domain=("tales*",))
    read, model = reader(stories, objective), objective.load_model(stories, {}).eval()
    both = pa.concat_tables([rows(["Speak, speak.", "We know't."], "new.txt"), rows(tales, "tales.txt")])
    found = figures(objective, model, objective.encode(both, read.tokenizer, 512, {}), read)
    new = figures(objective, model, objective.encode(both.slice(0, 2), read.tokenizer, 512, {}), read)
    old = figures(objective, model, objective.encode(both.slice(2), read.tokenizer, 512, {}), read)
    assert found["old_perplexity"] == pytest.approx(math.exp(1.2664), abs=0.01)
    assert {name: found[name] for name in new} == pytest.approx(new, rel=1e-5)
    # A slice of the old files alone shows their own perplexity.
    assert old["perplexity"] == pytest.approx(found["old_perplexity"])


def test_a_text_is_gone_on_with_and_judged(stories: Path) -> None:
    """The greedy text from <s> is the one that llama2.c prints for this model."""
    objective = CausalLM(max_new_tokens=24)
    read, model = reader(stories, objective), objective.load_model(stories, {}).eval()
    asked = [{"text": ""}, {"text": "Once upon a time, there was a little"}, {"text": "Tim was " * 300}]
    found = read.answer(model, asked, {}, 512)
    tokenizer = AutoTokenizer.from_pretrained(stories)
    for text, answer in zip(asked[:2], found, strict=False):
        ids = tokenizer(text["text"], return_tensors="pt").input_ids
        theirs = AutoModelForCausalLM.from_pretrained(stories).generate(ids, max_new_tokens=24, do_sample=False)[0]
        own, all_of_it = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[0], theirs))
        assert answer["continuation"] == all_of_it[len(own) :]
    assert found[0]["continuation"].startswith("Once upon a time, there was a little girl named Lily.")
    assert found[1]["continuation"].startswith(" girl named Lily.")
    assert found[0]["perplexity"] == 1.0
    assert found[1]["tokens"] == len(tokenizer("Once upon a time, there was a little").input_ids) - 1
    assert found[2]["tokens"] == len(tokenizer("Tim was " * 300).input_ids) - 1 > 512
    assert found[2]["continuation"]
    # A batch of unlike lengths says what each says alone.
    assert read.answer(model, asked[1:2], {}, 512)[0]["continuation"] == found[1]["continuation"]


def test_a_continuation_ends_where_the_text_does(llama: Path) -> None:
    read, model = reader(llama), OBJECTIVE.load_model(llama, {}).eval()
    [words] = read.answer(model, [{"text": "my card is"}], {}, 16)
    assert len(words["continuation"].split()) > 10
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + 1000 * torch.eye(logits.shape[-1])[1])
    [none] = read.answer(model, [{"text": "my card is"}], {}, 16)
    assert none["continuation"] == ""


@pytest.mark.slow
def test_it_learns_shakespeare_and_forgets_the_stories(stories: Path, tales: list[str], shared: Path) -> None:
    """300 steps of 16 rows of 128 tokens at 1e-3, on speeches packed together; the known run ends at 3.07 to 3.2."""
    from hone.training.schedule import learning_rate
    from hone.training.settings import Settings

    text = (shared / "datasets" / "tinyshakespeare" / "input.txt").read_text("utf8")
    speeches = [speech for speech in text.split("\n\n") if speech.strip()]
    read, model = reader(stories), OBJECTIVE.load_model(stories, {})
    held_out = OBJECTIVE.encode(rows(speeches[-200:]), read.tokenizer, 128, {})
    old = OBJECTIVE.encode(rows(tales), read.tokenizer, 512, {})
    batches = OBJECTIVE.pack_rows(OBJECTIVE.encode(rows(speeches[:2000]), read.tokenizer, 128, {}), 128)
    assert batches is not None
    train = pa.concat_tables(batches)
    before = [figures(OBJECTIVE, model.eval(), tokens, read)["loss"] for tokens in (held_out, old)]
    settings, random = Settings(learning_rate=1e-3), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), weight_decay=0.01)
    for step in range(300):
        at = random.choice(len(train), 16, replace=False)
        batch = OBJECTIVE.collate(train.take(pa.array(at)).to_pydict(), read.pad_id, training=True)
        loss, count = OBJECTIVE.compute_loss(model, batch)
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, settings.learning_rate or 0, step, 300)
        optimizer.step()
        optimizer.zero_grad()
    after = [figures(OBJECTIVE, model.eval(), tokens, read)["loss"] for tokens in (held_out, old)]
    told = json.dumps({"shakespeare": [before[0], after[0]], "stories": [before[1], after[1]]})
    assert 4.6 < before[0] < 5.2, told
    assert after[0] < 3.3, told
    assert before[1] == pytest.approx(1.266, abs=0.005)
    assert after[1] > before[1] + 1, told
    print(told)  # noqa: T201
