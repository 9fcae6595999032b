from __future__ import annotations

import json
import logging
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from hone.errors import CheckpointError
from hone.training import checkpoints, randomness
from hone.training.checkpoints import Checkpoint, State

CPU = torch.device("cpu")


def _checkpoint(step: int) -> Checkpoint:
    weights = {"head.weight": torch.full((50, 20), float(step)), "scale": torch.tensor(0.1)}
    return Checkpoint(State(step=step, best_step=step), weights, {"head.weight/step": torch.tensor(1.0)}, {})


def _save(home: Path, *steps: int) -> None:
    for step in steps:
        checkpoints.save_checkpoint(home, _checkpoint(step))


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = _checkpoint(7)
    saved.state.seconds = 0.1 + 0.2
    checkpoints.save_checkpoint(tmp_path, saved)
    found = checkpoints.load_latest_checkpoint(tmp_path, CPU)
    assert found is not None
    assert found.state == saved.state
    assert found.weights.keys() == saved.weights.keys()
    assert all(torch.equal(found.weights[name], saved.weights[name]) for name in saved.weights)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoints.load_latest_checkpoint(tmp_path / "nowhere", CPU) is None


def test_a_half_written_one_is_passed_over_and_cleared_away(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    (tmp_path / ".writing-step-00000002").mkdir()
    (tmp_path / ".writing-step-00000002" / "weights.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000003").mkdir()  # no manifest
    found = checkpoints.load_latest_checkpoint(tmp_path, CPU)
    assert found is not None
    assert found.state.step == 1
    _save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    _save(tmp_path, 1, 2)
    file = tmp_path / "step-00000002" / name
    file.write_bytes(file.read_bytes()[:-3])
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load_latest_checkpoint(tmp_path, CPU)
    assert found is not None
    assert found.state.step == 1
    assert str(file) in caplog.text
    assert not file.parent.exists()
    _save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_one_that_is_damaged_meanwhile_does_not_count_among_those_kept(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "state.json").write_bytes(b"\xff")
    _save(tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"state.json": "0"}'])
def test_a_manifest_that_lists_too_little_is_damage(tmp_path: Path, text: str) -> None:
    _save(tmp_path, 1)
    (tmp_path / "step-00000001" / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        checkpoints.load_latest_checkpoint(tmp_path, CPU)


def test_a_missing_optimizer_is_damage_and_no_other_result(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "optimizer.safetensors").unlink()
    found = checkpoints.load_latest_checkpoint(tmp_path, CPU)
    assert found is not None
    assert found.state.step == 1


def test_when_all_are_damaged_the_error_names_them_and_what_to_delete(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    for weights in tmp_path.glob("*/weights.safetensors"):
        weights.write_bytes(b"")
    with pytest.raises(CheckpointError) as fault:
        checkpoints.load_latest_checkpoint(tmp_path, CPU)
    message = str(fault.value)
    assert "step-00000001/weights.safetensors" in message
    assert "step-00000002/weights.safetensors" in message
    assert f"{tmp_path}:" in message
    assert "delete this directory" in message


def test_best_weights_are_verified(tmp_path: Path) -> None:
    weights = {"head": torch.ones(3)}
    state = State(best_step=4, best_digest=checkpoints.save_best_weights(tmp_path, 4, weights))
    assert torch.equal(checkpoints.load_best_weights(tmp_path, state, CPU)["head"], weights["head"])
    (tmp_path / "best-00000004.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="of step 4, are missing or damaged"):
        checkpoints.load_best_weights(tmp_path, state, CPU)


def test_best_weights_stay_as_long_as_a_checkpoint_speaks_of_them(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoints.save_best_weights(tmp_path, step, {"head": torch.ones(3)})
        _save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.glob("best-*")) == ["best-00000002.safetensors", "best-00000003.safetensors"]


@contextmanager
def small_files() -> Iterator[None]:
    """Within the block no file may grow beyond 3,000 bytes: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_failed_write_leaves_the_one_before(tmp_path: Path) -> None:
    small = Checkpoint(State(step=1), {"a": torch.ones(2)}, {"a/step": torch.ones(1)}, {})
    checkpoints.save_checkpoint(tmp_path, small)
    with small_files(), pytest.raises((OSError, SafetensorError)):
        checkpoints.save_checkpoint(tmp_path, _checkpoint(2))
    found = checkpoints.load_latest_checkpoint(tmp_path, CPU)
    assert found is not None
    assert found.state.step == 1


def test_every_generator_goes_on_where_it_was() -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.standard_normal()), torch.rand(1).item()]

    randomness.seed_generators(3)
    draw()
    states = json.loads(json.dumps({name: state.tolist() for name, state in randomness.get_generator_states().items()}))
    expected = draw()
    randomness.seed_generators(4)
    dtypes = {name: state.dtype for name, state in randomness.get_generator_states().items()}
    randomness.restore_generators({name: torch.tensor(state, dtype=dtypes[name]) for name, state in states.items()})
    assert draw() == expected
