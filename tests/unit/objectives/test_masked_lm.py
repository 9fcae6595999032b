from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from hone.errors import ModelError
from hone.methods.lora import Lora
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from tests.tiny_bases import WORDS, tiny_bert, tiny_llama, tiny_masked

OBJECTIVE = MaskedLM()


def rows(texts: list[str]) -> pa.Table:
    ids = [f"train.txt:{n}" for n in range(1, len(texts) + 1)]
    return pa.table({"id": ids, "text": pa.array(texts, pa.string())})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_masked(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=["bert-base-uncased", "gpt2"])
def tokenizer(request: pytest.FixtureRequest, shared: Path) -> Any:
    """BERT's own, and GPT-2's with RoBERTa's special tokens: the same words and pieces as RoBERTa's."""
    found = AutoTokenizer.from_pretrained(shared / "tokenizers" / request.param / "hf")
    if found.mask_token is None:
        found.add_special_tokens({"mask_token": "<mask>", "pad_token": "<pad>"})
    return found


def test_whole_words_are_chosen_and_special_tokens_never(tokenizer: Any) -> None:
    texts = ["The unbelievable extravaganza of disproportionately antidisestablishmentarian otters " * 9, "Hello"]
    encoded = MaskedLM(masked=0.4).encode(rows(texts), tokenizer, 64, {})
    assert encoded["id"].to_pylist().count("train.txt:1") > 1
    seen = 0
    for training in (False, True, True):
        batch = MaskedLM(masked=0.4).collate(encoded.to_pydict(), 0, training)
        for row, (ids, words) in enumerate(
            zip(encoded["input_ids"].to_pylist(), encoded["words"].to_pylist(), strict=True)
        ):
            labels = batch["labels"][row, : len(ids)].tolist()
            chosen = {word for word, label in zip(words, labels, strict=True) if label != -100}
            assert -1 not in chosen
            # Every piece of a chosen word is to be found, and no piece of another.
            assert labels == [one if word in chosen else -100 for one, word in zip(ids, words, strict=True)]
            pieces = [sum(word == one for one in words) for word in chosen]
            seen += max(pieces, default=0) > 1
    assert seen >= 3


def test_each_token_by_itself_where_asked(tokenizer: Any) -> None:
    encoded = MaskedLM(whole_words=False).encode(rows(["unbelievable extravaganza"]), tokenizer, 64, {})
    words = [word for word in encoded["words"].to_pylist()[0] if word >= 0]
    assert len(set(words)) == len(words)


def test_a_share_is_masked_replaced_and_left_as_it_is(base: Path) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 40)) for _ in range(300)]
    encoded = OBJECTIVE.encode(rows(texts), load_tokenizer(base), 64, {}).to_pydict()
    torch.manual_seed(0)
    batch = OBJECTIVE.collate(encoded, 0, training=True)
    labels, shown = batch["labels"], batch["input_ids"]
    chosen = labels != -100
    assert chosen.sum() == 300 * 6  # 15% of 40
    mask = encoded["mask_id"][0]
    assert (shown[chosen] == mask).float().mean().item() == pytest.approx(0.8, abs=0.03)
    # Of the tenth that any token may replace, one in the vocabulary's 24 is the token itself.
    assert (shown[chosen] == labels[chosen]).float().mean().item() == pytest.approx(0.1 + 0.1 / 24, abs=0.03)
    plain = torch.tensor(encoded["input_ids"])
    assert torch.equal(shown[~chosen], plain[~chosen])
    # What is judged is masked throughout.
    judged = OBJECTIVE.collate(encoded, 0)
    assert (judged["input_ids"][judged["labels"] != -100] == mask).all()


def test_training_draws_anew_from_torch_and_evaluation_repeats_itself(base: Path) -> None:
    encoded = OBJECTIVE.encode(rows([" ".join(WORDS), " ".join(WORDS[::-1])]), load_tokenizer(base), 64, {})
    table = encoded.to_pydict()

    def drawn(training: bool) -> list[list[int]]:
        found: list[list[int]] = OBJECTIVE.collate(table, 0, training)["labels"].tolist()
        return found

    state = torch.get_rng_state()
    first, second = drawn(True), drawn(True)
    assert first != second
    torch.set_rng_state(state)
    assert [drawn(True), drawn(True)] == [first, second]
    state = torch.get_rng_state()
    assert drawn(False) == drawn(False)
    assert torch.equal(state, torch.get_rng_state())
    # A row is masked alike in whatever batch it stands.
    turned = {name: values[::-1] for name, values in table.items()}
    assert OBJECTIVE.collate(turned, 0)["labels"].tolist() == drawn(False)[::-1]


def test_figures_are_those_of_the_masked_tokens(base: Path) -> None:
    read_by = load_tokenizer(base)
    model = OBJECTIVE.load_model(base, {}).eval()
    tokens = OBJECTIVE.encode(rows([" ".join(WORDS * 2), "my card", ""]), read_by, 32, {})
    raw, _ = Reader(OBJECTIVE, 0, torch.device("cpu"), read_by).predict(model, tokens)
    outcome = OBJECTIVE.compute_outcome(tokens, raw, {})
    assert outcome.statistics.shape == (3, 6)
    asked = [{"text": text} for text in ("one", "two", "three")]
    assert [answer["text"] for answer in OBJECTIVE.build_answers(tokens, raw, {}, asked)] == ["one", "two", "three"]
    batch = OBJECTIVE.collate(tokens.to_pydict(), 0)
    at = batch["labels"] != -100
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[at]
    labels = batch["labels"][at]
    figures = OBJECTIVE.compute_metrics(outcome.statistics.sum(0)[:, None], {})
    assert outcome.statistics[:, 1].sum() == len(labels)
    assert figures["masked_accuracy"][0] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert figures["pseudo_perplexity"][0] == pytest.approx(math.exp(loss), rel=1e-5)
    with torch.no_grad():
        total, count = OBJECTIVE.compute_loss(model, batch)
    assert total.item() / count == pytest.approx(loss, rel=1e-5)


def test_the_old_domain_has_its_own_figure(base: Path) -> None:
    objective = MaskedLM(old_domain=("train*",))
    tokenizer = load_tokenizer(base)
    model, reader = objective.load_model(base, {}).eval(), Reader(objective, 0, torch.device("cpu"), tokenizer)
    old_rows = rows([" ".join(WORDS), " ".join(WORDS[::-1])])
    new_rows = rows(["my card was lost", "the money is late"])
    new_rows = new_rows.set_column(0, "id", pa.array(["new.txt:1", "new.txt:2"]))

    def measure(table: pa.Table) -> dict[str, float]:
        tokens = objective.encode(table, tokenizer, 32, {})
        outcome = objective.compute_outcome(tokens, reader.predict(model, tokens)[0], {})
        return {
            name: float(value[0])
            for name, value in objective.compute_metrics(outcome.statistics.sum(0)[:, None], {}).items()
        }

    both, new, old = (measure(table) for table in (pa.concat_tables([old_rows, new_rows]), new_rows, old_rows))
    assert "old_pseudo_perplexity" not in new
    assert {name: both[name] for name in new} == pytest.approx(new, rel=1e-5)
    assert both["old_pseudo_perplexity"] == pytest.approx(old["pseudo_perplexity"], rel=1e-5)
    assert both["old_pseudo_perplexity"] != pytest.approx(both["pseudo_perplexity"], rel=1e-3)
    assert ["old_pseudo_perplexity" in it.training_metrics for it in (objective, OBJECTIVE)] == [True, False]


def test_masks_are_filled_with_what_is_likeliest(base: Path) -> None:
    objective = MaskedLM(top=3)
    tokenizer, model = load_tokenizer(base), objective.load_model(base, {}).eval()
    asked = [{"text": "my [MASK] is [MASK]"}, {"text": "my card"}, {"text": f"{'money ' * 40}[MASK]"}]
    found = Reader(objective, 0, torch.device("cpu"), tokenizer).answer(model, asked, {}, 32)
    inputs = tokenizer("my [MASK] is [MASK]", return_tensors="pt")
    with torch.no_grad():
        chances = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits[0].softmax(-1)
    at = (inputs.input_ids[0] == tokenizer.mask_token_id).nonzero().flatten()
    best = chances[at].max(-1)
    words = [tokenizer.decode([one]) for one in best.indices.tolist()]
    assert found[0]["text"] == f"my {words[0]} is {words[1]}"
    assert found[0]["score"] == pytest.approx(best.values.prod().item(), rel=1e-4)
    assert [len(mask) for mask in found[0]["fills"]] == [3, 3]
    assert found[1] == {"text": "my card", "score": 1.0, "fills": []}
    assert "[MASK]" not in found[2]["text"]


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no mask token"):
        OBJECTIVE.encode(rows(["a"]), load_tokenizer(tiny_llama(tmp_path)), 8, {})


def test_an_adapter_holds_what_is_new_in_the_head(base: Path, tmp_path: Path) -> None:
    """An encoder without a head: what it gets is random, so an adapter without it would be of no use."""
    from peft import PeftModel
    from transformers import AutoModel

    AutoModel.from_pretrained(base).save_pretrained(tmp_path / "bare")
    load_tokenizer(base).save_pretrained(tmp_path / "bare")
    torch.manual_seed(1)
    tuned = Lora(rank=2).prepare(OBJECTIVE.load_model(tmp_path / "bare", {}))
    moving = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert any("transform.dense" in name for name in moving)
    assert not any("decoder" in name or "word_embeddings" in name for name in moving)
    batch = OBJECTIVE.collate(OBJECTIVE.encode(rows([" ".join(WORDS)]), load_tokenizer(base), 32, {}).to_pydict(), 0)
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad], 1e-2)
    for _ in range(3):
        OBJECTIVE.compute_loss(tuned, batch)[0].backward()
        optimizer.step()
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    expected = OBJECTIVE.predict_batch(tuned.eval(), batch)["scores"]
    torch.manual_seed(2)
    again = PeftModel.from_pretrained(OBJECTIVE.load_model(tmp_path / "bare", {}), tmp_path / "adapter").eval()
    assert OBJECTIVE.predict_batch(again, batch)["scores"] == pytest.approx(expected, abs=1e-5)
    assert OBJECTIVE.predict_batch(tuned.merge_and_unload(), batch)["scores"] == pytest.approx(expected, abs=1e-5)


def test_masks_keep_the_word_embedding_whole(base: Path) -> None:
    """Training narrows it to the ids of the rows, which must not be done where others are made up."""
    from hone.training.session import _as_encoded

    class Rows:
        def __init__(self, table: pa.Table) -> None:
            self.table = table

        def __len__(self) -> int:
            return len(self.table)

        def rows(self, at: Any) -> dict[str, Any]:
            table = self.table.take(pa.array(list(at))).drop_columns(["id"]).to_pydict()
            return table | {"input_ids": [np.array(ids) for ids in table["input_ids"]]}

    encoded = Rows(OBJECTIVE.encode(rows(["my card"]), load_tokenizer(base), 32, {}))
    assert not _as_encoded(OBJECTIVE, encoded, 0)  # type: ignore[arg-type]


def test_a_new_head_is_the_same_each_time_the_base_is_judged(tmp_path: Path) -> None:
    from hone.evaluation.judging.baselines import untuned

    base = tiny_bert(tmp_path, words=["[MASK]", *WORDS])
    tokenizer = load_tokenizer(base)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    tokens = OBJECTIVE.encode(rows([" ".join(WORDS)]), tokenizer, 32, {})
    reader = Reader(OBJECTIVE, 0, torch.device("cpu"), tokenizer)
    one, two = (untuned(base, tokens, reader, lambda *_: None, {})["scores"] for _ in range(2))
    assert one == two
