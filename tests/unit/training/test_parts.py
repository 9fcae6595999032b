"""The small parts: rows in place, narrowed embeddings, arithmetic, gradients, choices."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from hone.errors import DataError
from hone.methods.freeze import Freeze
from hone.training import choices, hardware
from hone.training.embeddings import UsedRows, narrow_embedding
from hone.training.optimization import clip_gradients, make_optimizer
from hone.training.tokens import TokenFile

CONFIG = BertConfig(
    vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
)


def _model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(CONFIG).eval()


def test_rows_come_from_any_chunk_in_the_order_asked_for(tmp_path: Path) -> None:
    lists = [[i] * (i % 5 + 1) for i in range(23)]
    columns = {"id": [f"r{i}" for i in range(23)], "input_ids": pa.array(lists, pa.list_(pa.int32()))}
    table = pa.table(columns | {"label": pa.array(range(23), pa.int64())})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=4)
    tokens = TokenFile(tmp_path / "t.arrow")
    rows = tokens.rows([22, 0, 4, 3])
    assert [ids.tolist() for ids in rows["input_ids"]] == [lists[i] for i in (22, 0, 4, 3)]
    assert rows["label"] == [22, 0, 4, 3]
    assert tokens.names([4, 21]) == ["r4", "r21"]
    assert tokens.lengths.tolist() == [len(ids) for ids in lists]
    assert tokens.used_ids().tolist() == list(range(23))


def test_a_file_that_is_no_arrow_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.arrow").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"t\.arrow: cannot be read"):
        TokenFile(tmp_path / "t.arrow")


def test_training_a_narrowed_embedding_gives_the_same_weights() -> None:
    used = np.array([3, 5, 8, 9, 30])
    batch = {"input_ids": torch.from_numpy(used)[None], "labels": torch.tensor([1])}
    results = []
    for narrowed in (False, True):
        model = _model()
        widen = narrow_embedding(model, used, 0) if narrowed else lambda: None
        assert isinstance(model.get_input_embeddings(), UsedRows) == narrowed
        optimizer = make_optimizer(model, 0.3)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-2
        for _ in range(3):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        widen()
        results.append(model.state_dict())
    before = _model().state_dict()["bert.embeddings.word_embeddings.weight"]
    after = results[1]["bert.embeddings.word_embeddings.weight"]
    assert (before != after).any(1).nonzero().flatten().tolist() == used.tolist()
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-6) for name in results[0])


@pytest.mark.parametrize("padding", [None, 0, 7])
def test_every_token_of_a_narrowed_embedding_has_a_gradient_but_padding(padding: int | None) -> None:
    """Also if the padding id of the base model's configuration is not the tokenizer's and occurs in no row."""
    full = torch.nn.Embedding(60, 4, padding_idx=padding)
    rows = UsedRows(full, torch.tensor([0, 3, 5]))
    rows(torch.tensor([0, 3, 5])).sum().backward()
    assert (rows.weight.grad != 0).any(1).tolist() == [padding != 0, True, True]


def test_an_embedding_that_is_tied_or_stands_still_is_left_alone() -> None:
    tied, frozen = BertForMaskedLM(CONFIG), Freeze().prepare(_model())
    for model in (tied, frozen):
        before = model.get_input_embeddings()
        narrow_embedding(model, np.arange(5), 0)
        assert model.get_input_embeddings() is before


def test_biases_norms_and_embeddings_do_not_decay() -> None:
    model = _model()
    decayed, others = make_optimizer(model, 0.1).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)] for p in others["params"]} == {
        name for name in names.values() if "LayerNorm" in name or "embeddings" in name or name.endswith("bias")
    }
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_gradients_are_scaled_then_clipped_and_the_norm_is_that_before() -> None:
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert float(clip_gradients(gradients, 2.0, 1.0)) == pytest.approx(10.0)
    assert torch.cat(gradients).norm().item() == pytest.approx(1.0, abs=1e-5)
    loose = [torch.tensor([3.0]), torch.tensor([4.0])]
    clip_gradients(loose, 0.5, 0.0)
    assert torch.cat(loose).tolist() == [1.5, 2.0]


def test_peak_memory_is_in_bytes_on_linux_and_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 5_000_000
    monkeypatch.setattr(hardware.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=counted))  # type: ignore[attr-defined]
    monkeypatch.setattr(hardware.sys, "platform", "darwin")  # type: ignore[attr-defined]
    assert hardware.peak_memory(torch.device("cpu")) == counted
    monkeypatch.setattr(hardware.sys, "platform", "linux")  # type: ignore[attr-defined]
    assert hardware.peak_memory(torch.device("cpu")) == 1024 * counted


def test_choices_outlive_the_process_and_the_micro_batch_halves_down_to_one(tmp_path: Path) -> None:
    assert choices.load_choices(tmp_path) == choices.Choices()
    made = choices.Choices(micro_batch_size=5, precision="bf16", resumed_from=(3, 9))
    choices.save_choices(tmp_path, made)
    assert choices.load_choices(tmp_path) == made
    assert [choices.halve_micro_batch(tmp_path) for _ in range(4)] == [3, 2, 1, 0]
    assert choices.load_choices(tmp_path) == choices.Choices(1, "bf16", (3, 9))


def test_what_auto_measured_is_kept_for_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cpu, measured = tmp_path / "home" / "machine.json", torch.device("cpu"), ["bf16", "fp32"]
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(hardware, "_measure_precision", lambda: measured.pop(0))
    assert [hardware.choose_precision("auto", cpu, file) for _ in range(3)] == ["bf16"] * 3
    assert hardware.choose_precision("fp32", cpu, file) == "fp32"
    monkeypatch.setattr(hardware, "_processor_name", lambda: "another")
    assert [hardware.choose_precision("auto", cpu, file) for _ in range(2)] == ["fp32"] * 2
    assert set(json.loads(file.read_text("utf8"))["precision"].values()) == {"bf16", "fp32"}
    for damaged in ("", '{"precision": {"', "[]", '{"precision": 1}'):
        file.write_text(damaged, "utf8")
        measured.append("bf16")
        assert hardware.choose_precision("auto", cpu, file) == "bf16"
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: False)
    assert hardware.choose_precision("auto", cpu, tmp_path / "none" / "machine.json") == "fp32"
    assert not (tmp_path / "none").exists()
