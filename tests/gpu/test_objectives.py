"""Objectives on text and four-bit weights on a CUDA device: in bf16 near what a CPU has in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from hone.evaluation.judging import predict
from hone.methods import METHODS
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.tokenization.tokenize import read_tokens
from hone.training import launch
from tests.families import CASES, LONGEST, Case, make

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
Event = dict[str, Any]
TRIED = ("causal-lm", "chat", "preference", "masked-lm", "seq2seq", "span-corruption", "embedding")
BY_NAME = {case.objective: case for case in CASES}


def train(case: Case, base: Path, tokens: Path, out: Path, method: tuple[str, Event], **settings: Any) -> list[float]:
    """The losses of a training."""
    events: list[Event] = []
    launch.train(
        tokens,
        out,
        base=base,
        objective=(case.objective, dict(case.options)),
        method=method,
        settings={"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, **settings},
        on_event=events.append,
    )
    return [event["loss"] for event in events if "loss" in event]


@pytest.mark.parametrize("name", TRIED)
def test_losses_are_near_those_of_a_cpu(name: str, device: str, tmp_path: Path) -> None:
    """Dropout is off; masks and spans are drawn on the CPU, from the same seed."""
    case = BY_NAME[name]
    base, tokens = make(case, case.families[0], tmp_path)
    whole = ("full", {})
    cpu = train(case, base, tokens, tmp_path / "cpu", whole, device="cpu", precision="fp32")
    exact = train(case, base, tokens, tmp_path / "exact", whole, device=device, precision="fp32")
    half = train(case, base, tokens, tmp_path / "half", whole, device=device, precision="bf16")
    assert exact == pytest.approx(cpu, rel=0.02, abs=0.01)
    assert half == pytest.approx(cpu, rel=0.1, abs=0.1)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("name", ["chat", "causal-lm"])
def test_documents_that_are_packed_have_the_loss_they_have_alone(
    name: str, family: str, precision: str, tolerance: float, device: str, tmp_path: Path
) -> None:
    """By the attention that transformers takes here (sdpa), each document's mean loss."""
    case = BY_NAME[name]
    base, tokens = make(case, family, tmp_path)
    objective, targets = case.build(), json.loads((tokens / "targets.json").read_text("utf8"))
    model = objective.load_model(base, targets).eval().to(device)
    assert model.config._attn_implementation == "sdpa"
    pad = int(model.config.pad_token_id or 0)
    test = read_tokens(tokens / "test.arrow")  # these are not packed
    batches = objective.pack_rows(test, 2 * LONGEST)
    assert batches is not None
    packed = pa.concat_tables(batches).to_pydict()
    assert max(map(len, packed["documents"])) > 1

    def losses(columns: dict[str, list[Any]], ends: list[list[int]]) -> list[float]:
        """The mean loss of what is labelled between two ends, row by row."""
        batch = {name: tensor.to(device) for name, tensor in objective.collate(columns, pad, training=True).items()}
        found = []
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            for row, row_ends in enumerate(ends):
                for start, end in zip([0, *row_ends], row_ends, strict=False):
                    mine = torch.full_like(batch["labels"], -100)
                    mine[row, start:end] = batch["labels"][row, start:end]
                    total, count = objective.compute_loss(model, {**batch, "labels": mine})
                    found.append(total.item() / count)
        return found

    ids = test["input_ids"].to_pylist()
    alone = dict(zip(map(tuple, ids), losses(test.to_pydict(), [[len(row)] for row in ids]), strict=True))
    ends = [[sum(lengths[: place + 1]) for place in range(len(lengths))] for lengths in packed["documents"]]
    rows = zip(packed["input_ids"], ends, strict=True)
    order = [tuple(row[start:end]) for row, each in rows for start, end in zip([0, *each], each, strict=False)]
    assert losses(packed, ends) == pytest.approx([alone[document] for document in order], abs=tolerance)


@pytest.mark.parametrize("name", ["text-classification", "chat"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_four_bits_are_trained_and_merged_as_what_they_stand_for(
    name: str, family: str, device: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    case, options = BY_NAME[name], {"rank": 2, "dropout": 0.0}
    base, tokens = make(case, family, tmp_path)
    cpu = train(case, base, tokens, tmp_path / "cpu", ("qlora", options), device="cpu", precision="fp32")
    exact = train(case, base, tokens, tmp_path / "out", ("qlora", options), device=device, precision="fp32")
    half = train(case, base, tokens, tmp_path / "half", ("qlora", options), device=device, precision="bf16")
    assert exact == pytest.approx(cpu, rel=0.02, abs=0.01)
    assert half == pytest.approx(cpu, rel=0.1, abs=0.1)

    out, targets = tmp_path / "out", json.loads((tokens / "targets.json").read_text("utf8"))
    tokenizer, test = load_tokenizer(out / "model"), read_tokens(tokens / "test.arrow")
    reader = Reader(case.build(), tokenizer.pad_token_id, torch.device(device), tokenizer)
    merged = predict.load_trained(out / "model", targets, reader.device)
    beside = predict.load_adapted(out / "adapter", base, targets, reader, METHODS["qlora"](**options).load_on_base)  # type: ignore[attr-defined]
    ours, theirs = (predict.read(model, test, reader, lambda *_: None, "")[0] for model in (merged, beside))
    predict.check_merged(ours, theirs, out)
