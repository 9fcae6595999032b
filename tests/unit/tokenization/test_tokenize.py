from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.errors import ConfigError, DataError, ModelError
from hone.objectives.causal_lm import CausalLM
from hone.objectives.text_classification import TextClassification
from hone.progress import Progress
from hone.tokenization import tokenize as tokenization
from hone.tokenization.tokenize import read_tokens, tokenize
from tests.tiny_bases import WORDS, tiny, tiny_bert, tiny_llama

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def write_splits(folder: Path, **texts: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        mine = texts.get(split, ["my card", "my money"] * 3)
        labels = ["card" if n % 2 == 0 else "money" for n in range(len(mine))]
        columns = {"id": [f"{split}.csv:{n}" for n in range(len(mine))], "text": mine, "label": labels}
        schema = pa.schema([(name, pa.string()) for name in columns])
        pq.write_table(pa.table(columns, schema=schema), folder / f"{split}.parquet")
    return folder


def run(splits: Path, out: Path, base: Path, **changes: Any) -> Any:
    out.mkdir(exist_ok=True)
    settings = {"max_length": 16, "max_truncated": 0.5, **changes}
    return tokenize(splits, out, base=base, objective=TextClassification(), **settings)


def test_the_account_adds_up(base: Path, tmp_path: Path) -> None:
    texts = ["", "word", "word " * 10, "word " * 30]
    product = run(write_splits(tmp_path / "in", train=texts), tmp_path / "out", base)
    assert product.rows == 4 + 6 + 6
    assert product.content == ("*.arrow", "targets.json")
    # [CLS] and [SEP] count: rows of 2, 3, 12 and 32 tokens, the last cut to 16.
    assert product.facts["splits"]["train"] == {
        "rows": 4,
        "sequences": 4,
        "tokens": 2 + 3 + 12 + 16,
        "truncated_rows": 1,
        "lost_tokens": 16,
        "longest": 32,
        "median": 12,
        "p95": 32,
    }
    assert product.facts["rows_per_second"] > 0
    assert json.loads((tmp_path / "out" / "targets.json").read_text()) == {
        "labels": ["card", "money"],
        "shares": [0.5, 0.5],
    }
    tokens = read_tokens(tmp_path / "out" / "train.arrow")
    assert tokens["id"].to_pylist() == [f"train.csv:{n}" for n in range(4)]
    assert [len(row) for row in tokens["input_ids"].to_pylist()] == [2, 3, 12, 16]
    assert tokens["lost"].to_pylist() == [0, 0, 0, 16]
    assert tokens["label"].to_pylist() == [0, 1, 0, 1]


def test_too_much_truncation_says_where_how_much_and_what_would_do(base: Path, tmp_path: Path) -> None:
    texts = [f"{'word ' * n}" for n in range(1, 21)]
    splits = write_splits(tmp_path / "in", test=texts)
    with pytest.raises(DataError) as caught:
        run(splits, tmp_path / "out", base, max_length=12, max_truncated=0.1)
    message = str(caught.value)
    assert (
        "the test split: 10 of 20 rows (50.0%) are longer than 12 tokens; tokenization.max_truncated is 10.0%"
        in message
    )
    assert f"{sum(range(1, 11))} tokens would be lost" in message
    for n in (19, 18, 17, 16, 15):
        assert f"test.csv:{n} ({n + 3} tokens)" in message
    assert "test.csv:14" not in message
    assert "Set tokenization.max_length to 20" in message
    product = run(splits, tmp_path / "again", base, max_length=20, max_truncated=0.1)
    assert product.facts["splits"]["test"]["truncated_rows"] == 2


def test_a_length_that_no_row_needs_is_not_proposed_beyond_the_base(base: Path, tmp_path: Path) -> None:
    splits = write_splits(tmp_path / "in", train=["word " * 100, "word " * 90])
    with pytest.raises(DataError, match="The base model is limited to 64 tokens"):
        run(splits, tmp_path / "out", base, max_truncated=0)


def test_the_share_itself_is_still_allowed(base: Path, tmp_path: Path) -> None:
    splits = write_splits(tmp_path / "in", train=["word " * 30, "word", "word", "word"])
    assert run(splits, tmp_path / "out", base, max_truncated=0.25).facts["splits"]["train"]["truncated_rows"] == 1
    with pytest.raises(DataError):
        run(splits, tmp_path / "out", base, max_truncated=0.24)


def test_the_same_rows_give_the_same_bytes_whatever_their_parquet_row_groups(base: Path, tmp_path: Path) -> None:
    splits = write_splits(tmp_path / "in", train=[f"card {word}" for word in WORDS] * 30)
    run(splits, tmp_path / "one", base)
    pq.write_table(pq.read_table(splits / "train.parquet"), splits / "train.parquet", row_group_size=7)
    run(splits, tmp_path / "two", base)
    for name in ("train.arrow", "valid.arrow", "test.arrow", "targets.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_long_rows_come_one_at_a_time_and_in_order(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "BATCH_BYTES", 100)
    monkeypatch.setattr(tokenization, "BATCH_ROWS", 8)
    texts = [f"{word} " * (60 if n % 5 == 0 else 1) for n, word in enumerate(WORDS)]
    seen: list[Progress] = []
    out = tmp_path / "out"
    run(write_splits(tmp_path / "in", train=texts), out, base, max_truncated=1.0, on_progress=seen.append)
    tokens = read_tokens(out / "train.arrow")
    assert tokens["id"].to_pylist() == [f"train.csv:{n}" for n in range(len(texts))]
    with pa.memory_map(str(out / "train.arrow")) as file:
        reader = pa.ipc.open_file(file)
        sizes = [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)]
    assert max(sizes) <= 8
    assert len(sizes) > len(texts) / 8 + 1
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total) == (len(texts) + 12, len(texts) + 12)


def test_a_text_of_a_million_characters_is_one_row_with_a_long_account(base: Path, tmp_path: Path) -> None:
    splits = write_splits(tmp_path / "in", train=["word " * 200_000, "card"])
    account = run(splits, tmp_path / "out", base).facts["splits"]["train"]
    assert account["longest"] == 200_002
    assert account["lost_tokens"] == 200_002 - 16


def test_an_empty_validation_split_is_an_empty_file(base: Path, tmp_path: Path) -> None:
    run(write_splits(tmp_path / "in", valid=[]), tmp_path / "out", base)
    tokens = read_tokens(tmp_path / "out" / "valid.arrow")
    assert len(tokens) == 0
    assert tokens.schema == read_tokens(tmp_path / "out" / "train.arrow").schema


def test_more_tokens_than_the_base_has_positions_is_a_fault_of_the_config(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenization.max_length: 65 exceeds the base model's maximum of 64 tokens"):
        run(write_splits(tmp_path / "in"), tmp_path / "out", base, max_length=65)
    run(write_splits(tmp_path / "in"), tmp_path / "out", base, max_length=64)


def test_of_66_positions_of_a_roberta_64_are_advised_and_accepted(tmp_path: Path) -> None:
    base = tiny("roberta", tmp_path / "base", positions=64)
    assert json.loads((base / "config.json").read_text())["max_position_embeddings"] == 66

    def tokenize_row(tokens: int, max_length: int) -> Any:
        """A row of that many tokens, two of which are special, and a short one."""
        splits = write_splits(tmp_path / "in", train=["word " * (tokens - 2), "word"])
        return run(splits, tmp_path / "out", base, max_length=max_length, max_truncated=0)

    with pytest.raises(DataError, match=r"Set tokenization.max_length to 64;"):
        tokenize_row(64, max_length=16)
    with pytest.raises(DataError, match=r"The base model is limited to 64 tokens;"):
        tokenize_row(65, max_length=64)
    assert tokenize_row(64, max_length=64).facts["splits"]["train"]["longest"] == 64
    with pytest.raises(
        ConfigError, match=r"65 exceeds the base model's maximum of 64 tokens(.|\n)*Set it to 64 or less"
    ):
        tokenize_row(64, max_length=65)


def test_ids_that_the_model_has_no_embedding_for_are_refused(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in base.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    with pytest.raises(ModelError, match="its model has only 5 embeddings"):
        run(write_splits(tmp_path / "in"), tmp_path / "out", other)


@pytest.mark.parametrize("before", [None, "false"])
def test_the_environment_is_left_as_it_was(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    else:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    within: list[str | None] = []
    listen = lambda _: within.append(os.environ.get("TOKENIZERS_PARALLELISM"))  # noqa: E731
    run(write_splits(tmp_path / "in"), tmp_path / "out", base, on_progress=listen)
    assert set(within) == {"true"}
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


def test_training_rows_alone_are_packed_and_the_account_is_of_rows(tmp_path: Path) -> None:
    texts = [" ".join(WORDS[:n]) for n in (3, 19, 2, 9, 5, 7)]
    splits, out = write_splits(tmp_path / "in", train=texts, test=texts), tmp_path / "out"
    out.mkdir()
    made = tiny_llama(tmp_path / "llama")
    product = tokenize(splits, out, base=made, objective=CausalLM(), max_length=16, max_truncated=0)
    train, test = (product.facts["splits"][split] for split in ("train", "test"))
    # With the end 4, 20, 3, 10, 6 and 8 tokens; the second is parted into 16 and, the last of them once more, 5.
    assert {name: test[name] for name in ("rows", "sequences", "tokens", "longest", "lost_tokens")} == {
        "rows": 6,
        "sequences": 7,
        "tokens": 52,
        "longest": 21,
        "lost_tokens": 0,
    }
    assert product.rows == 6 + 6 + 6
    # 16; 10 and 6; 8, 5 and 3; 4.
    assert (train["rows"], train["sequences"], train["tokens"]) == (6, 4, 52)
    packed, single = read_tokens(out / "train.arrow"), read_tokens(out / "test.arrow")
    assert sorted(packed["documents"].to_pylist()) == [[4], [8, 5, 3], [10, 6], [16]]
    assert sorted(packed["input_ids"].combine_chunks().flatten().to_pylist()) == sorted(
        single["input_ids"].combine_chunks().flatten().to_pylist()
    )
    assert "documents" not in single.column_names
    assert [path.name for path in out.iterdir() if path.suffix == ".packed"] == []
    assert len(read_tokens(out / "valid.arrow")) == 6
