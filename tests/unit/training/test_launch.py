from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ModelError, OutOfMemory, TrainingError
from hone.store.artifact import Product
from hone.training import choices, launch
from tests.tiny_bases import tiny_bert
from tests.tiny_training import machine_precisions, specification, write_tokens

Event = dict[str, Any]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def train(tokens: Path, out: Path, base: Path, on_event: Any = launch.ignore, **settings: Any) -> Product:
    spec = specification(tokens, out, base, **settings)
    parts = {name: spec[name] for name in ("objective", "method", "settings")}
    return launch.train(tokens, out, base=base, on_event=on_event, **parts)


def gone(pid: int, within: float = 60.0) -> bool:
    """Whether the process ends in that many seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within)[0])
    finally:
        os.close(handle)


@pytest.mark.usefixtures("forked_children")
@pytest.mark.slow
def test_a_training_tells_its_steps_and_leaves_what_it_says(base: Path, tokens: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    product = train(tokens, tmp_path / "out", base, events.append, max_steps=3, method=("lora", {"rank": 2}))
    assert [event["type"] for event in events] == ["started", "step", "step", "step", "valid", "done"]
    assert events[0]["steps"] == 3
    assert product.rows == 96
    assert product.content == ("model/*", "adapter/*")
    assert product.facts["steps"] == 3
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert sorted(left.difference(product.temporary)) == [
        "adapter",
        "history.jsonl",
        "model",
        "train.log",
        "training.json",
    ]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in (tmp_path / "out/model").iterdir()
    }
    assert gone(events[0]["pid"], 0)

    again: list[Event] = []
    assert train(tokens, tmp_path / "out", base, again.append, max_steps=3) == product
    assert again == []  # it was done already


@pytest.mark.usefixtures("forked_children")
@pytest.mark.slow
def test_the_same_configuration_gives_the_same_model_on_one_machine(base: Path, tokens: Path, tmp_path: Path) -> None:
    """The precision that `auto` measured once is that of later trainings, whatever another measurement would say."""
    machine = tmp_path / "home/machine.json"

    def train_auto(name: str) -> tuple[bytes, str]:
        spec = specification(tokens, tmp_path / name, base, max_steps=3, precision="auto")
        parts = {part: spec[part] for part in ("objective", "method", "settings")}
        product = launch.train(tokens, tmp_path / name, base=base, machine=machine, **parts)
        return (tmp_path / name / "model/model.safetensors").read_bytes(), product.facts["precision"]

    first = train_auto("first")
    assert train_auto("second") == first
    if len(machine_precisions()) < 2:
        return  # without bfloat16 there is nothing to measure
    [(name, measured)] = json.loads(machine.read_text("utf8"))["precision"].items()
    assert measured == first[1]
    [other] = {"fp32", "bf16"} - {measured}
    machine.write_text(json.dumps({"precision": {name: other}}), "utf8")
    weights, precision = train_auto("third")
    assert precision == other and weights != first[0]


@pytest.mark.slow
def test_kill_9_in_the_middle_and_again_gives_the_same_bytes(base: Path, tokens: Path, tmp_path: Path) -> None:
    straight = train(tokens, tmp_path / "straight", base)

    def kill(event: Event) -> None:
        if event["type"] == "started":
            pids.append(event["pid"])
        if event["type"] == "step" and event["step"] == 9:
            os.kill(pids[0], signal.SIGKILL)

    pids: list[int] = []
    with pytest.raises(TrainingError, match="ended by SIGKILL") as fault:
        train(tokens, tmp_path / "killed", base, kill, checkpoint_seconds=0)
    assert "Run again: training goes on" in str(fault.value)
    events: list[Event] = []
    product = train(tokens, tmp_path / "killed", base, events.append, checkpoint_seconds=0)
    resumed = next(event["step"] for event in events if event["type"] == "resumed")
    assert resumed >= 8
    assert product.facts["resumed_from"] == [resumed]
    models = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "killed")]
    assert models[0] == models[1]
    losses = [_losses(tmp_path / name) for name in ("straight", "killed")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == straight.facts["steps"]


def _losses(out: Path) -> list[tuple[int, float]]:
    entries = map(json.loads, (out / "history.jsonl").read_text("utf8").splitlines())
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


class Cancelled(BaseException):
    """What an orchestrator throws into a task."""


@pytest.mark.slow
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Cancelled])
def test_an_interrupt_ends_the_training(
    base: Path, tokens: Path, tmp_path: Path, interrupt: type[BaseException]
) -> None:
    pids: list[int] = []

    def cancel(event: Event) -> None:
        pids.append(event["pid"])
        raise interrupt

    with pytest.raises(interrupt):
        train(tokens, tmp_path / "out", base, cancel, epochs=500)
    with pytest.raises(ProcessLookupError):  # gone, and no zombie
        os.kill(pids[0], 0)


DRIVER = """
import json, sys
from pathlib import Path
from hone.training import launch
spec = json.load(open(sys.argv[1]))
parts = {name: spec[name] for name in ("objective", "method", "settings")}
launch.train(Path(spec["tokens"]), Path(spec["out"]), base=Path(spec["base"]), **parts,
             on_event=lambda event: print(json.dumps(event), flush=True))
"""


@pytest.mark.slow
def test_when_the_parent_is_killed_the_training_ends(base: Path, tokens: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(specification(tokens, tmp_path / "out", base, epochs=500)), "utf8")
    command = [sys.executable, "-c", DRIVER, str(spec)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())["pid"]
        assert json.loads(parent.stdout.readline())["type"] == "step"
        parent.kill()
    assert gone(child)


GROUP = """
import os, subprocess, sys, time
from hone.training import wire
wire.end_with_parent()
grandchild = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(grandchild.pid, flush=True)
while True:  # holds the interpreter, as a long call into C may
    pass
"""


def test_all_that_the_training_started_ends_with_the_parent() -> None:
    command = [sys.executable, "-c", GROUP]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        grandchild = int(process.stdout.readline())
        process.stdin.close()
        assert gone(grandchild)
        assert process.wait(60) == -signal.SIGKILL


@pytest.mark.usefixtures("forked_children")
@pytest.mark.slow
def test_errors_of_the_training_come_back_as_themselves(base: Path, tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as fault:
        train(tokens, tmp_path / "out", base, method=("lora", {"target_modules": ["kwery"]}))
    assert "no linear layer of the model is called kwery" in str(fault.value)
    assert "There are query, key, value, dense" in str(fault.value)


@pytest.mark.usefixtures("forked_children")
@pytest.mark.slow
def test_a_fault_without_a_word_shows_the_end_of_the_log(base: Path, tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as fault:
        train(tokens, tmp_path / "out", base, no_such_setting=1)
    assert "exit status 1" in str(fault.value)
    assert "no_such_setting" in str(fault.value)
    assert str(tmp_path / "out" / "train.log") in str(fault.value)


def test_what_does_not_fit_at_one_row_is_an_error_that_says_so(tmp_path: Path) -> None:
    choices.save_choices(tmp_path, choices.Choices(micro_batch_size=1, precision="fp32"))
    assert choices.halve_micro_batch(tmp_path) == 0


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"precision": "bf16"}'])
def test_damaged_choices_are_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "choices.json").write_bytes(content)
    assert choices.load_choices(tmp_path) == choices.Choices()


@pytest.mark.usefixtures("forked_children")
@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "zeros", "missing"])
def test_a_damaged_model_of_a_finished_training_is_not_committed(
    damage: str, base: Path, tokens: Path, tmp_path: Path
) -> None:
    """As after a power cut: training.json is there, the model's bytes are not."""
    first = train(tokens, tmp_path / "out", base, max_steps=2, checkpoint_seconds=0)
    assert train(tokens, tmp_path / "out", base, pytest.fail, max_steps=2, checkpoint_seconds=0) == first
    file = tmp_path / "out" / "model" / "model.safetensors"
    weights = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else bytes(len(weights)))
    again = train(tokens, tmp_path / "out", base, max_steps=2, checkpoint_seconds=0)
    assert file.read_bytes() == weights and again.facts["steps"] == first.facts["steps"]


@pytest.mark.usefixtures("forked_children")
@pytest.mark.slow
def test_a_damaged_account_of_a_finished_training_is_written_again(base: Path, tokens: Path, tmp_path: Path) -> None:
    first = train(tokens, tmp_path / "out", base, max_steps=2, checkpoint_seconds=0)
    weights = (tmp_path / "out" / "model" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "training.json").write_bytes(b"")
    events: list[Event] = []
    again = train(tokens, tmp_path / "out", base, events.append, max_steps=2, checkpoint_seconds=0)
    assert "resumed" in [event["type"] for event in events]
    assert again.facts["steps"] == first.facts["steps"]
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == weights
    with pytest.raises(OutOfMemory, match="not even one row at a time"):
        launch._report_smaller(0, "CUDA out of memory", launch.ignore)


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))\n"


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch_and_goes_on(tmp_path: Path) -> None:
    """A real one: the address space is limited to little more than one row at a time needs, and the batch has 32."""
    base = tiny_bert(tmp_path / "base", positions=512)
    tokens = write_tokens(tmp_path / "tokens", base, train=32, valid=0, longest=512)
    settings = {"batch_size": 32, "max_steps": 2, "checkpoint_seconds": 0, "micro_batch_size": 1, "precision": "fp32"}
    peak = _peak_address_space(specification(tokens, tmp_path / "small", base, **settings))
    spec = specification(tokens, tmp_path / "out", base, **settings | {"micro_batch_size": 0})
    limit = peak + 150 * 2**20
    events = _drive(tmp_path, spec, LIMIT.format(limit) + DRIVER)
    halved = [event["micro_batch_size"] for event in events if event["type"] == "out_of_memory"]
    facts = json.loads((tmp_path / "out" / "training.json").read_text("utf8"))
    assert halved
    assert halved == [32 >> i for i in range(1, len(halved) + 1)]
    assert facts["micro_batch_size"] == halved[-1]
    assert facts["micro_batch_size"] * facts["accumulation"] == 32
    assert facts["steps"] == 2


def _drive(folder: Path, spec: Event, driver: str) -> list[Event]:
    file = folder / "driver.json"
    file.write_text(json.dumps(spec), "utf8")
    done = subprocess.run([sys.executable, "-c", driver, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _peak_address_space(spec: Event) -> int:
    """The most bytes of address space that a training takes, one row at a time."""
    sizes: list[int] = []

    def measure(event: Event) -> None:
        if event["type"] == "started":
            pids.append(event["pid"])
        if event["type"] == "step" and event["step"] == 1:
            status = Path(f"/proc/{pids[0]}/status").read_text("utf8")
            sizes.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPeak")))

    pids: list[int] = []
    parts = {name: spec[name] for name in ("objective", "method", "settings")}
    launch.train(Path(spec["tokens"]), Path(spec["out"]), base=Path(spec["base"]), on_event=measure, **parts)
    return sizes[0] * 1024
