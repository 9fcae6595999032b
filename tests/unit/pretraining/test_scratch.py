"""Base models from scratch: loadable, their tokenizers their own, the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from hone.errors import ConfigError, DataError
from hone.models.locate import locate_base_model
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification
from hone.pretraining.scratch import FOLDER, make_base

TEXTS = ["the rain came down over the old town", "a goal in the last minute of the match", "so many words, café"] * 40
AUTO = {"bert": "AutoModelForMaskedLM", "roberta": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("splits")
    pq.write_table(pa.table({"id": [str(i) for i in range(len(TEXTS))], "text": TEXTS}), home / "train.parquet")
    return home


def made(splits: Path, out: Path, architecture: str, **sizes: Any) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    given = {"hidden_size": 32, "layers": 2, "heads": 4, "positions": 64, "vocabulary": 400, "seed": 3} | sizes
    make_base(splits, out, objective=TextClassification(), architecture=architecture, **given)
    return out / FOLDER


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "mistral", "bert", "roberta", "t5"])
def test_it_is_a_base_model_like_any_other(architecture: str, splits: Path, tmp_path: Path) -> None:
    home = made(splits, tmp_path, architecture)
    assert locate_base_model(str(home)).path == home
    tokenizer = load_tokenizer(home)
    ids = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXTS[0]
    assert tokenizer.unk_token_id not in ids or tokenizer.unk_token_id is None
    auto = getattr(transformers, AUTO.get(architecture, "AutoModelForCausalLM"))
    model = auto.from_pretrained(home).eval()
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    long = torch.full((1, 64), ids[0])
    more = {"labels": long} if architecture == "t5" else {}
    with torch.inference_mode():
        logits = model(input_ids=long, attention_mask=torch.ones_like(long), **more).logits
    assert logits.shape == (1, 64, len(tokenizer))
    if architecture in ("bert", "roberta", "t5"):
        assert tokenizer("", add_special_tokens=True)["input_ids"]
    assert TextClassification().load_model(home, {"labels": ["a", "b"]}).config.num_labels == 2


@pytest.mark.parametrize("architecture", ["llama", "bert", "t5"])
def test_the_same_rows_and_seed_give_the_same_bytes(architecture: str, splits: Path, tmp_path: Path) -> None:
    first, second = (made(splits, tmp_path / name, architecture) for name in ("1", "2"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name
    other = made(splits, tmp_path / "3", architecture, seed=4)
    assert (other / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()
    assert (other / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()


def test_heads_that_do_not_part_the_width_are_refused(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a hidden size of 32 is not a multiple of 3 heads"):
        made(splits, tmp_path, "llama", heads=3)


def test_a_split_without_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "text": [""]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        made(tmp_path, tmp_path / "out", "bert")
