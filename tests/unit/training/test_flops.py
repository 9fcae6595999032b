"""FLOPs of training against torch's counter, on rows that were not counted before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hone.methods.freeze import Freeze
from hone.methods.lora import Lora
from hone.objectives.base import Objective
from hone.objectives.causal_lm import CausalLM
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.seq2seq import Seq2Seq
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification
from hone.training.flops import MAX_LENGTH, Flops, _choose_rows, _fit, measure_flops
from hone.training.tokens import TokenFile
from tests.families import DECODERS, ENCODERS, PAIRS
from tests.tiny_bases import WORDS, tiny

CPU = torch.device("cpu")


def write_rows(objective: Objective, base: Path, file: Path, rows: int = 24) -> TokenFile:
    """Rows of 3 to 40 words, a target of 1 to 12."""
    chance = random.Random(5)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(3, 40))) for _ in range(rows)]
    targets = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(rows)]
    columns = {"text": texts, "source": ["a"] * rows, "target": targets, "label": ["x", "y"] * (rows // 2)}
    columns |= {"input": texts, "output": targets}
    ids = [f"row:{row}" for row in range(rows)]
    table = pa.table({"id": ids} | {name: columns[name] for name in objective.columns})
    encoded = objective.encode(table, load_tokenizer(base), 64, objective.build_targets(table))
    with pa.ipc.new_file(file, encoded.schema) as out:
        out.write_table(encoded)
    return TokenFile(file)


def count_rows(objective: Objective, model: Any, tokens: TokenFile, rows: range, pad_id: int) -> tuple[float, int]:
    """The FLOPs that torch counts for the rows, one at a time, and their targets."""
    flops, targets = 0.0, 0
    model.eval()
    for row in rows:
        batch = objective.collate(tokens.rows([row]), pad_id, True)
        with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
            loss, count = objective.compute_loss(model, batch)
            loss.backward()
        flops, targets = flops + counter.get_total_flops(), targets + count
        model.zero_grad()
    return flops, targets


def objectives(family: str) -> list[Objective]:
    if family in PAIRS:
        own: Objective = Seq2Seq(max_target_length=16)
    elif family in DECODERS:
        own = CausalLM()
    else:
        own = MaskedLM() if family != "xlnet" else TextClassification()
    return [own, TextClassification()]


@pytest.mark.parametrize("family", [*ENCODERS, *PAIRS, *DECODERS])
def test_flops_are_those_that_torch_counts(family: str, tmp_path: Path) -> None:
    base = tiny(family, tmp_path / "base", hidden=32)
    for number, objective in enumerate(objectives(family)):
        tokens = write_rows(objective, base, tmp_path / f"{number}.arrow")
        model = objective.load_model(base, {"labels": ["x", "y"], "shares": [0.5, 0.5]})
        pad_id = int(model.config.pad_token_id)
        for method in (None, Lora(rank=2), Freeze(layers=1))[: 3 - 2 * number]:
            trained = method.prepare(model) if method else model
            measured = measure_flops(objective, trained, tokens, pad_id, CPU)
            rows = range(len(tokens))
            counted, targets = count_rows(objective, trained, tokens, rows, pad_id)
            assert measured.of(tokens.lengths, targets) == pytest.approx(counted, rel=0.05), (objective, method)
            if isinstance(method, Lora):
                model = trained.unload()


def test_counting_leaves_random_numbers_gradients_and_mode_alone(tmp_path: Path) -> None:
    objective, base = MaskedLM(), tiny("bert", tmp_path / "base")
    tokens = write_rows(objective, base, tmp_path / "rows.arrow")
    model = objective.load_model(base, {})
    model.train()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    measure_flops(objective, model, tokens, int(model.config.pad_token_id), CPU)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_rows_are_chosen_from_short_to_long_but_not_too_long() -> None:
    assert _choose_rows(np.array([7])) == [0]
    lengths = np.arange(1000)[::-1] + 1
    chosen = _choose_rows(lengths)
    assert [int(lengths[row]) for row in chosen] == sorted(int(lengths[row]) for row in chosen)
    assert (lengths[chosen].min(), lengths[chosen].max()) == (1, MAX_LENGTH)
    assert _choose_rows(np.array([5000, 6000])) == [0]


def test_factors_are_never_negative_and_rows_are_added_up() -> None:
    tokens = np.array([10.0, 20, 40, 80])
    features = np.stack([tokens, tokens**2, np.ones(4)], axis=1)
    assert _fit(features, features @ [6.0, 0.5, 30.0]) == pytest.approx([6.0, 0.5, 30.0])
    # Noise that a negative factor would follow.
    assert min(_fit(features, 6 * tokens - 20)) >= 0
    assert Flops(6.0, 0.5, 30.0).of(np.array([10, 20]), 2) == pytest.approx(6 * 30 + 0.5 * 500 + 60)
