from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from hone.errors import ModelError
from hone.methods import METHODS
from hone.objectives.causal_lm import CausalLM
from hone.objectives.shared.packing import best_fit_decreasing, check_documents_isolated, pack_documents, position_ids
from hone.objectives.shared.tokenizer import to_list_array
from tests.tiny_bases import tiny


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(4, 32))
def test_every_document_is_in_one_bin_that_it_fits_into(lengths: list[int], capacity: int) -> None:
    bins = best_fit_decreasing(np.array(lengths, np.int64), capacity)
    assert sorted(position for one in bins for position in one) == list(range(len(lengths)))
    for one in bins:
        assert sum(lengths[position] for position in one) <= capacity or len(one) == 1
    # Two bins that are half empty would have been one.
    filled = [sum(lengths[position] for position in one) for one in bins]
    assert sum(2 * tokens <= capacity for tokens in filled) <= 1


def test_a_document_goes_where_it_leaves_the_least_room() -> None:
    # 7 and 6 open bins with 3 and 4 left; 3 fits both, and fills the first.
    assert best_fit_decreasing(np.array([6, 3, 7, 4]), 10) == [[2, 1], [0, 3]]
    assert best_fit_decreasing(np.array([6, 3, 7]), 10) == [[2, 1], [0]]


def test_lists_are_joined_and_the_lengths_stay() -> None:
    columns = {
        "id": ["a", "b", "c"],
        "input_ids": to_list_array([[1, 2], [3], [4, 5, 6]]),
        "labels": to_list_array([[0, 2], [0], [0, 5, 6]]),
        "closed": pa.array([1, 1, 0], pa.int32()),
        "lost": pa.array([0, 2, 3], pa.int32()),
    }
    tokens = pa.concat_tables([pa.table(columns).slice(0, 1), pa.table(columns).slice(1)])
    [found] = pack_documents(tokens, [[2, 0], [1]])
    assert found.to_pydict() == {
        "id": ["c and 1 more", "b"],
        "input_ids": [[4, 5, 6, 1, 2], [3]],
        "labels": [[0, 5, 6, 0, 2], [0]],
        "documents": [[3, 2], [1]],
        "lost": [3, 2],
    }
    assert found.schema.field("input_ids").type == pa.list_(pa.int32())


def test_positions_start_again_with_each_document_and_go_on_through_the_padding() -> None:
    assert position_ids([[3, 2], [1]], 6).tolist() == [[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]]


def test_a_decoder_that_looks_into_its_neighbours_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=30, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.5)
    bloom = BloomForCausalLM(config).eval()
    bloom.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"would attend to each other.*\n?.*packing=false"):
        check_documents_isolated(bloom, "bloom")


@pytest.mark.parametrize(("method", "apart"), [("lora", True), ("ia3", True), ("prompt", False), ("prefix", False)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_method_that_lets_documents_see_into_each_other_is_refused(
    family: str, method: str, apart: bool, tmp_path: Path
) -> None:
    objective, options = CausalLM(), {} if apart else {"virtual_tokens": 2}
    prepared = METHODS[method](**options).prepare(objective.load_model(tiny(family, tmp_path), {}))
    with nullcontext() if apart else pytest.raises(ModelError, match="would attend to each other"):
        objective.check_model(prepared, family)
    CausalLM(packing=False).check_model(prepared, family)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_trained_gpt2_keeps_documents_apart(shared: Path, attention: str) -> None:
    base = shared / "models" / "gpt-nano-sort"
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation=attention).eval()
    first, second = [2, 1, 0, 2, 1], [0, 2, 2, 1]
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([second]), use_cache=False).logits[0]
        ids, positions = torch.tensor([first + second]), position_ids([[5, 4]], 9)
        apart = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, 5:]
        seen = model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits[0, 5:]
    assert torch.allclose(alone, apart, atol=1e-4)
    assert not torch.allclose(alone, seen, atol=1e-1)
