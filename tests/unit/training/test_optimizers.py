"""The optimizers of bitsandbytes beside torch's AdamW: their steps, their memory, interruptions, and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hone.errors import ModelError
from hone.training import hardware, loop
from hone.training.launch import train
from hone.training.optimization import make_optimizer
from tests.tiny_bases import tiny_bert
from tests.tiny_training import specification, write_tokens

pytest.importorskip("bitsandbytes")


class StoppedError(Exception):
    """An interruption at a chosen step."""


class Words(nn.Module):
    """An embedding, a matrix and a norm, each large enough for eight bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding, self.matrix, self.norm = nn.Embedding(64, 128), nn.Linear(128, 64), nn.LayerNorm(64)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.matrix(self.embedding(ids)))
        return result


def descend(kind: str, steps: int = 20) -> tuple[Words, torch.optim.Optimizer, list[float]]:
    model = Words()
    optimizer = make_optimizer(model, 0.1, kind=kind)
    draw, losses = torch.Generator().manual_seed(5), []
    for _ in range(steps):
        ids = torch.randint(0, 64, (32,), generator=draw)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * group["scale"]
        loss = nn.functional.cross_entropy(model(ids), ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, optimizer, losses


def test_eight_bits_learn_as_32_do_in_a_third_of_the_memory() -> None:
    (ours, eight, losses), (theirs, full, expected) = descend("adamw_8bit"), descend("adamw")
    assert losses[-1] == pytest.approx(expected[-1], rel=0.05) and losses[-1] < 0.5 * losses[0]
    weight = ours.matrix.weight
    assert torch.nn.functional.cosine_similarity(weight.flatten(), theirs.matrix.weight.flatten(), dim=0) > 0.99
    size = {
        id(optimizer): sum(
            value.nbytes for key, value in optimizer.state[parameter].items() if key not in ("step", "qmap1", "qmap2")
        )
        for optimizer, parameter in ((eight, weight), (full, theirs.matrix.weight))
    }
    assert size[id(eight)] < size[id(full)] / 3
    assert eight.state[ours.embedding.weight]["state1"].dtype == torch.float32
    assert weight.dtype == torch.float32


def test_the_same_parameters_decay() -> None:
    for kind in ("adamw", "adamw_8bit"):
        groups = make_optimizer(Words(), 0.1, kind=kind).param_groups
        assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 4)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device can page")
@pytest.mark.parametrize("kind", ["paged_adamw", "paged_adamw_8bit"])
def test_paging_needs_a_gpu(kind: str) -> None:
    with pytest.raises(ModelError, match=f"{kind}: pages the memory of a CUDA device, and the device is cpu\n  Choose"):
        make_optimizer(Words(), 0.1, kind=kind)


def test_without_bitsandbytes_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes, which is not installed\n.*hone\[qlora\]"):
        make_optimizer(Words(), 0.1, kind="adamw_8bit")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("optimizers")
    base = tiny_bert(folder / "base", hidden_size=64)
    return base, write_tokens(folder / "tokens", base)


def test_a_training_that_was_stopped_gives_the_same_bytes(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "peak_flops", lambda *_: 1e12)
    torch.set_num_threads(1)
    base, tokens = made
    settings = {"optimizer": "adamw_8bit", "max_steps": 8, "batch_size": 8, "checkpoint_seconds": 0}

    def go(name: str, stop: int = 0) -> None:
        def hear(event: dict[str, Any]) -> None:
            if event["type"] == "step" and event["step"] == stop:
                raise StoppedError

        loop.run(specification(tokens, tmp_path / name, base, **settings), hear)

    go("straight")
    with pytest.raises(StoppedError):
        go("stopped", 5)
    go("stopped")
    assert json.loads((tmp_path / "stopped/choices.json").read_text())["resumed_from"] == [4]
    straight, stopped = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "stopped"))
    assert straight == stopped


@pytest.mark.slow
def test_a_training_process_may_import_bitsandbytes_for_it(made: tuple[Path, Path], tmp_path: Path) -> None:
    base, tokens = made
    spec = specification(tokens, tmp_path / "out", base, optimizer="adamw_8bit", max_steps=2)
    parts = {name: spec[name] for name in ("objective", "method", "settings")}
    assert train(tokens, tmp_path / "out", base=base, **parts).facts["steps"] == 2
