"""A training of each objective on text that is stopped in the middle and goes on is the one that was never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.tokenization.tokenize import read_tokens
from hone.training import hardware, loop
from tests.families import CASES, Case, make

# Masks and spans are drawn anew in training, LoRA drops out, and preference asks its base before the first step.
TRIED = ("causal-lm", "chat", "preference", "masked-lm", "seq2seq", "span-corruption", "embedding")


class StoppedError(Exception):
    """An interruption at a chosen step."""


@pytest.fixture(scope="module", params=[case for case in CASES if case.objective in TRIED], ids=lambda c: c.objective)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path, Path]:
    """An objective, a base for it, and its tokens; of plain text several rows are packed into one."""
    case: Case = request.param
    base, tokens = make(case, case.families[0], tmp_path_factory.mktemp(case.objective))
    if case.objective == "causal-lm":
        assert max(map(len, read_tokens(tokens / "train.arrow")["documents"].to_pylist())) > 1
    return case, base, tokens


def test_each_is_tried() -> None:
    assert set(TRIED) <= {case.objective for case in CASES}


@pytest.mark.parametrize("method", [("full", {}), ("lora", {"rank": 2})], ids=["full", "lora"])
def test_stopped_and_gone_on_with_it_gives_the_same_bytes(
    made: tuple[Case, Path, Path], method: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(hardware, "peak_flops", lambda *_: 1e12)  # measured, it takes longer than the training
    case, base, tokens = made
    settings = {"epochs": 3, "batch_size": 2, "learning_rate": 1e-3, "device": "cpu", "precision": "fp32"}

    def go(name: str, stop: int = 0) -> list[int]:
        out, resumed = tmp_path / name, []

        def hear(event: dict[str, Any]) -> None:
            if event["type"] == "resumed":
                resumed.append(event["step"])
            if event["type"] == "step" and event["step"] == stop:
                raise StoppedError

        out.mkdir(exist_ok=True)
        spec = {"tokens": str(tokens), "out": str(out), "base": str(base), "method": method}
        spec |= {"objective": (case.objective, dict(case.options)), "settings": settings | {"checkpoint_seconds": 0}}  # type: ignore[dict-item]
        loop.run(spec, hear)
        return resumed

    go("straight")
    for step in (2, 5):
        with pytest.raises(StoppedError):
            go("stopped", step)
    assert go("stopped") == [4]

    straight, stopped = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("straight", "stopped")
    )
    assert straight == stopped
    histories = [(tmp_path / name / "history.jsonl").read_text("utf8").splitlines() for name in ("straight", "stopped")]
    kept = ("step", "loss", "learning_rate", "grad_norm", "valid_loss")
    assert len({json.dumps([[json.loads(line).get(k) for k in kept] for line in lines]) for lines in histories}) == 1
