"""Training on a CUDA device: bf16, fused AdamW, real allocation failures, and results near those of a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hone.errors import OutOfMemory
from hone.training import launch
from tests.tiny_bases import tiny_bert
from tests.tiny_training import specification, without_dropout, write_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device (torch.cuda.is_available())"),
]
Event = dict[str, Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_dropout(tiny_bert(tmp_path_factory.mktemp("base"), positions=512))


@pytest.fixture(scope="module")
def tokens(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"), base, train=192)


def train(tokens: Path, out: Path, base: Path, **settings: Any) -> tuple[Event, list[Event]]:
    spec = specification(tokens, out, base, **{"device": "cuda", **settings})
    parts = {name: spec[name] for name in ("objective", "method", "settings")}
    events: list[Event] = []
    return launch.train(tokens, out, base=base, on_event=events.append, **parts).facts, events


def figures(events: list[Event], name: str) -> list[float]:
    return [event[name] for event in events if name in event]


@pytest.mark.parametrize("method", [("full", {}), ("lora", {"rank": 4, "target_modules": ["query", "value", "dense"]})])
def test_it_learns_in_bf16(base: Path, tokens: Path, tmp_path: Path, method: tuple[str, Event]) -> None:
    facts, events = train(tokens, tmp_path / "out", base, precision="auto", epochs=8, learning_rate=1e-2, method=method)
    assert facts["device"] == torch.cuda.get_device_name()
    assert facts["precision"] == ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
    assert figures(events, "valid_accuracy")[-1] > 0.6
    assert 0 < facts["mfu"] < 1
    assert 0 < facts["memory_bytes"] < torch.cuda.get_device_properties(0).total_memory


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.01), ("bf16", 0.05)])
def test_results_are_those_of_a_cpu_within_tolerance(
    base: Path, tokens: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    settings = {"max_steps": 12, "learning_rate": 1e-3}
    _, cpu = train(tokens, tmp_path / "cpu", base, device="cpu", precision="fp32", **settings)
    _, cuda = train(tokens, tmp_path / "cuda", base, precision=precision, **settings)
    assert figures(cuda, "loss") == pytest.approx(figures(cpu, "loss"), rel=tolerance, abs=tolerance)
    assert figures(cuda, "valid_loss") == pytest.approx(figures(cpu, "valid_loss"), rel=tolerance, abs=tolerance)


def test_it_goes_on_after_an_interruption(base: Path, tokens: Path, tmp_path: Path) -> None:
    class CancelledError(BaseException): ...

    def stop(event: Event) -> None:
        if event["type"] == "step" and event["step"] == 9:
            raise CancelledError

    spec = specification(tokens, tmp_path / "out", base, device="cuda", checkpoint_seconds=0)
    parts = {name: spec[name] for name in ("objective", "method", "settings")}
    with pytest.raises(CancelledError):
        launch.train(tokens, tmp_path / "out", base=base, on_event=stop, **parts)
    facts, events = train(tokens, tmp_path / "out", base, checkpoint_seconds=0)
    straight, _ = train(tokens, tmp_path / "straight", base)
    assert facts["resumed_from"][0] >= 8
    assert figures(events, "step")[0] == facts["resumed_from"][0]
    assert facts["valid_loss"] == pytest.approx(straight["valid_loss"], abs=0.05)


def test_compiled_it_gives_the_same(base: Path, tokens: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 6, "learning_rate": 1e-3, "precision": "fp32"}
    _, plain = train(tokens, tmp_path / "plain", base, **settings)
    _, compiled = train(tokens, tmp_path / "compiled", base, compile=True, **settings)
    assert figures(compiled, "loss") == pytest.approx(figures(plain, "loss"), rel=0.01)


@pytest.fixture
def crowded() -> Any:
    """Gives a function that leaves only so many bytes of the device's memory free for others."""
    held: list[torch.Tensor] = []

    def leave(bytes_free: int) -> None:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        held.append(torch.empty(free - bytes_free, dtype=torch.uint8, device="cuda"))

    yield leave
    held.clear()
    torch.cuda.empty_cache()


def test_a_real_allocation_failure_halves_the_micro_batch(base: Path, tmp_path: Path, crowded: Any) -> None:
    """It is measured what the whole batch takes, some GB; then little more than half of it is left."""
    tokens = write_tokens(tmp_path / "tokens", base, train=4096, valid=0, longest=512)
    settings = {"batch_size": 4096, "max_steps": 2, "precision": "fp32", "checkpoint_seconds": 0}
    roomy, roomy_events = train(tokens, tmp_path / "roomy", base, **settings)
    assert roomy["memory_bytes"] > 4 * 2**30
    assert roomy["accumulation"] == 1
    crowded(roomy["memory_bytes"] // 2 + 2**30)  # 1 GB for CUDA's own context
    facts, events = train(tokens, tmp_path / "crowded", base, **settings)
    halved = [event["micro_batch_size"] for event in events if event["type"] == "out_of_memory"]
    assert halved
    assert halved == [4096 >> i for i in range(1, len(halved) + 1)]
    assert facts["micro_batch_size"] * facts["accumulation"] == 4096
    assert facts["steps"] == 2
    losses = {event["step"]: event["loss"] for event in events if "loss" in event}
    assert list(losses.values()) == pytest.approx(figures(roomy_events, "loss"), rel=0.01)


def test_no_memory_for_the_model_itself_is_an_error(base: Path, tokens: Path, tmp_path: Path, crowded: Any) -> None:
    crowded(64 * 2**20)  # a CUDA context alone takes more
    with pytest.raises(OutOfMemory):
        train(tokens, tmp_path / "out", base)
