"""Runs training in a process group of its own, restarts it with smaller micro-batches, and always ends it.

A CUDA fault or the kernel's out-of-memory killer ends the child and never this process; whatever ends this process
also ends the child. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone.errors import OutOfMemory, TrainingError
from hone.models import own_code
from hone.store import layout
from hone.store.artifact import Product
from hone.store.digests import file_digest
from hone.training import choices, wire
from hone.training.processes import build_environment, end_process

REFERENCE = "reference"  # a directory in the work directory
FILES = "files"  # in training.json: the digests of the model's files
TEMPORARY = ("checkpoints", REFERENCE, "spec.json", "choices.json")
_LOG_LINES = 15


def ignore(_: wire.Event) -> None:
    """A listener that ignores all events."""


def train(
    tokens: Path,
    out: Path,
    *,
    base: Path,
    objective: tuple[str, Mapping[str, Any]],
    method: tuple[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    machine: Path | None = None,
    on_event: Callable[[wire.Event], None] = ignore,
) -> Product:
    """Fine-tune the model in `base` on the rows in `tokens`; `objective` and `method` are (kind, options).

    `out` outlives an interrupted training: passed in again, training continues from the last complete checkpoint, on a
    CPU bit for bit as if it had not been interrupted. At the end it holds model/, adapter/ (if the method has one),
    history.jsonl and training.json, and what resuming needs: the product names it as temporary. `on_event` is called
    with every event; if it raises, training ends at once. The file `machine` keeps what was measured of this machine.

    Raises what the child raised; OutOfMemory if not even one row fits; TrainingError if the child was killed. After a
    kill, which may have been intended, training is not restarted; the next call continues it.
    """
    out.mkdir(parents=True, exist_ok=True)
    facts = _load_facts(out)
    if facts is None:
        spec = {"tokens": tokens, "out": out, "base": base}
        paths = {name: str(path.resolve()) for name, path in spec.items()}
        parts = {
            "objective": objective,
            "method": method,
            "settings": dict(settings),
            "code": own_code.allowed_digest(base),
            "machine": str(machine.resolve()) if machine else "",
        }
        (out / "spec.json").write_text(json.dumps(paths | parts, indent=1), "utf8")
        while not _run_attempt(out, on_event):
            pass
        facts = json.loads((out / layout.ACCOUNT).read_text("utf8"))
        del facts[FILES]
    content = ("model/*", "adapter/*") if (out / "adapter").is_dir() else ("model/*",)
    return Product(facts["rows"], content, facts, temporary=TEMPORARY)


def _load_facts(out: Path) -> dict[str, Any] | None:
    """What a finished training recorded, without the digests of its files; None before it, or if that or a file is
    damaged: it then goes on from a checkpoint. Earlier releases recorded no digests.
    """
    try:
        facts = json.loads((out / layout.ACCOUNT).read_text("utf8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if (
        not isinstance(facts, dict)
        or type(facts.get("rows")) is not int
        or facts.pop(FILES, None) not in (None, digest_model_files(out))
    ):
        return None
    return facts


def digest_model_files(out: Path) -> dict[str, str]:
    """SHA-256 of each file of the model and of the adapter in `out`, by its path."""
    files = sorted(file for folder in ("model", "adapter") for file in (out / folder).rglob("*") if file.is_file())
    return {str(file.relative_to(out)): file_digest(file) for file in files}


def _run_attempt(out: Path, on_event: Callable[[wire.Event], None]) -> bool:
    """Run one training process: True if it finished, False if it is to be restarted with a smaller micro-batch."""
    kills = _count_out_of_memory_kills()
    last: wire.Event = {}
    with _start_process(out) as (process, events):
        for event in wire.read_events(events, lambda: process.poll() is None):
            last = event
            if event["type"] not in ("error", "out_of_memory"):
                on_event(event)
        status = process.wait()
    if last.get("type") == "error":
        raise wire.event_to_error(last)
    if last.get("type") == "out_of_memory":
        _report_smaller(last["micro_batch_size"], last["detail"], on_event)
        return False
    if status == -signal.SIGKILL and _count_out_of_memory_kills() > kills:
        _report_smaller(choices.halve_micro_batch(out), "the kernel's out-of-memory killer ended it", on_event)
        return False
    if status:
        raise _build_error(status, out)
    return True


@contextmanager
def _start_process(out: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The training process and the pipe of its events; at the end of the block its whole group has ended."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "hone.training.loop", str(out / "spec.json"), str(writing)]
    with (out / "train.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            env={**build_environment(), "HF_HUB_OFFLINE": "1"},
        )
    os.close(writing)
    try:
        yield process, reading
    finally:
        end_process(process)
        os.close(reading)


def _report_smaller(micro_batch_size: int, detail: str, on_event: Callable[[wire.Event], None]) -> None:
    if not micro_batch_size:
        raise OutOfMemory(
            f"not even one row at a time fits into memory: {detail}",
            where="training.micro_batch_size 1",
            fix="Lower tokenization.max_length, choose the method lora or freeze, or a device with more free memory.",
        )
    on_event({"type": "out_of_memory", "micro_batch_size": micro_batch_size, "detail": detail})


def _build_error(status: int, out: Path) -> TrainingError:
    """The error for a process that ended without an error event."""
    lines = (out / "train.log").read_text("utf8", errors="replace").splitlines()[-_LOG_LINES:]
    tail = "".join(f"\n    {line}" for line in lines)
    fix = "Run again: training goes on from its last complete checkpoint."
    if status >= 0:
        return TrainingError(f"the training process failed (exit status {status}):{tail}", where=str(out / "train.log"))
    name = signal.Signals(-status).name
    what = f"the training process was ended by {name}"
    if name == "SIGKILL":
        fix += " If nobody killed it, the machine ran out of memory: lower training.micro_batch_size."
    return TrainingError(what + (f":{tail}" if lines else ""), where=str(out / "train.log"), fix=fix)


def _count_out_of_memory_kills() -> int:
    """The number of processes that the kernel's out-of-memory killer ended, on this machine and in this container."""
    counts = 0
    for file in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError):
            lines = file.read_text("utf8").splitlines()
            counts += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return counts
