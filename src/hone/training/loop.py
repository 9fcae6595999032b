"""The training process: `python -m hone.training.loop SPEC.json EVENTS`, started by launch.py.

Splitting a batch into micro-batches does not change its optimizer step: losses are sums, and the gradients of the sums
are divided by the number of targets of the whole batch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from hone.disk import describe_disk_fault
from hone.errors import HoneError, NonFiniteLoss, OutOfMemory, StoreError, TrainingError
from hone.training import checkpoints, choices, forward, hardware, wire
from hone.training.libraries import import_libraries
from hone.training.optimization import clip_gradients
from hone.training.result import save_result
from hone.training.schedule import learning_rate
from hone.training.selection import LOSS
from hone.training.session import Session, build

if TYPE_CHECKING:
    from hone.objectives.base import Batch


def run(spec: dict[str, Any], send: wire.Send) -> None:
    """Train as `spec` says, from the last checkpoint if there is one, and write the result into its work directory."""
    session = _build_session(spec)
    send({"type": "started", "pid": os.getpid(), **session.facts()})
    if session.state.step:
        send({"type": "resumed", "step": session.state.step})
    stopped = _train(session, send)
    save_result(session, stopped)
    send({"type": "done"})


def _build_session(spec: dict[str, Any]) -> Session:
    try:
        return build(spec)
    except (MemoryError, RuntimeError) as fault:
        if not hardware.is_out_of_memory(fault):
            raise
        raise OutOfMemory(
            f"the model itself does not fit into memory, whatever the micro-batch: {fault}",
            where=spec["base"],
            fix="Choose the method lora or freeze, a smaller base model, or a device with more free memory.",
        ) from fault


def _train(session: Session, send: wire.Send) -> str:
    """Train to the last step (returns `done`) or until the validation no longer improves (returns `early`)."""
    state, settings = session.state, session.settings
    last = saved = time.perf_counter()
    while state.step < session.total:
        entry = step(session)
        now = time.perf_counter()
        state.seconds, last = state.seconds + now - last, now
        entry["seconds"] = state.seconds
        session.history.add(entry)
        send({"type": "step", **entry})
        if state.step in session.evaluate_after:
            entry = evaluate(session)
            session.history.add(entry)
            send({"type": "valid", **entry})
            if settings.patience and state.stale >= settings.patience:
                return "early"
        if now - saved >= settings.checkpoint_seconds and state.step < session.total:
            session.save_checkpoint()
            send({"type": "checkpoint", "step": state.step})
            saved = time.perf_counter()
    return "done"


def step(session: Session) -> dict[str, Any]:
    """Do one optimizer step; returns its history line. Raises NonFiniteLoss before such a loss changes a weight."""
    state, settings = session.state, session.settings
    start = time.perf_counter()
    rows = session.sampler.rows(state.step)
    rate = learning_rate(settings, session.peak_rate, state.step, session.total)
    for group in session.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    total, targets = _accumulate_gradients(session, rows)
    gradients = [p.grad for p in session.model.parameters() if p.grad is not None]
    norm = clip_gradients(gradients, len(rows) / targets, settings.max_grad_norm)
    loss, grad_norm = torch.stack([total / targets, norm]).tolist()
    _refuse_non_finite(session, loss, grad_norm, rate)
    session.optimizer.step()
    session.optimizer.zero_grad()
    return _count_step(session, rows, targets, time.perf_counter() - start) | {
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": grad_norm,
    }


def _accumulate_gradients(session: Session, rows: np.ndarray) -> tuple[torch.Tensor, int]:
    """Accumulate a batch's gradients, divided by its number of rows; returns its summed loss and number of targets."""
    forward.set_training_mode(session.forward, dropout=session.objective.applies_dropout)
    total, targets = torch.zeros((), device=session.device), 0
    for batch in _micro_batches(session, session.train, rows):
        with _autocast(session):
            loss, count = session.objective.compute_loss(session.forward, batch)
        # By rows for now: the number of targets is known only after the last micro-batch; `step` corrects the factor.
        torch.autograd.backward(loss / len(rows))
        total, targets = total + loss.detach(), targets + count
    if not targets:
        raise TrainingError(
            f"no row of step {session.state.step + 1} has a target: all labels are masked",
            where=f"rows {', '.join(session.train.names(rows[:5]))}",
            fix="Look at what tokenize cut off (max_length), and at the labels of these rows.",
        )
    return total, targets


def evaluate(session: Session) -> dict[str, Any]:
    """Compute the validation loss and the objective's metrics; saves the weights if they are the best so far."""
    session.forward.eval()
    order = np.argsort(-session.valid.lengths, kind="stable")
    total, targets = 0.0, 0
    predictions: dict[str, list[Any]] = {}
    with torch.no_grad(), _autocast(session):
        for batch in _micro_batches(session, session.valid, order):
            model = _CachedForward(session.forward)
            loss, count = session.objective.compute_loss(model, batch)
            total, targets = total + loss.item(), targets + count
            if not session.objective.needs_rows:
                for name, values in session.objective.predict_batch(model, batch).items():
                    predictions.setdefault(name, []).extend(values)
    if not targets:
        raise TrainingError("no validation row has a target: all labels are masked", where="valid.arrow")
    entry = {"step": session.state.step, "valid_loss": total / targets}
    if predictions:
        outcome = session.objective.compute_outcome(session.valid.table(order), predictions, session.targets)
        figures = session.objective.compute_metrics(outcome.statistics.sum(0)[:, None], session.targets)
        _refuse_undefined(session, figures)
        entry |= {f"valid_{name}": float(figure[0]) for name, figure in figures.items() if np.isfinite(figure[0])}
    _select(session, entry)
    return entry


def _refuse_undefined(session: Session, figures: Mapping[str, np.ndarray]) -> None:
    """Raise TrainingError if the metric that was asked for has no value on these rows: no evaluation would be best."""
    name = session.settings.metric
    if name in ("", LOSS) or not np.isnan(figures.get(name, [np.nan])[0]):
        return
    raise TrainingError(
        f"{name} is not defined on the validation rows",
        where="training.metric",
        fix="Name another metric, or loss; or add validation rows that it is about.",
    )


def _select(session: Session, entry: Mapping[str, Any]) -> None:
    """Save the weights of an evaluation that is the best so far, or count it as one without improvement."""
    state, value = session.state, entry.get(f"valid_{session.selection.metric}")
    state.valid_loss = loss = entry["valid_loss"]
    state.valid = {name.removeprefix("valid_"): entry[name] for name in entry if name not in ("step", "valid_loss")}
    if value is None or not (
        state.best is None or session.selection.improves(value, loss, state.best, state.best_loss or 0)
    ):
        state.stale += 1
        return
    state.best, state.best_loss, state.best_step, state.stale = value, loss, state.step, 0
    state.best_valid = state.valid
    if session.settings.select == "best":
        state.best_digest = checkpoints.save_best_weights(session.checkpoints, state.step, session.weights())


def _micro_batches(session: Session, tokens: Any, rows: np.ndarray) -> Iterator[Batch]:
    """The rows in batches of at most `micro_batch_size` rows, on the device."""
    for start in range(0, len(rows), session.micro_batch_size):
        encoded = tokens.rows(rows[start : start + session.micro_batch_size])
        batch = session.objective.collate(encoded, session.pad_id, session.forward.training)
        if session.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        yield {name: tensor.to(session.device, non_blocking=True) for name, tensor in batch.items()}


def _autocast(session: Session) -> AbstractContextManager[None]:
    return torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.precision == "bf16")


class _CachedForward:
    """A model that runs once per batch: the loss and the predictions of one batch share a forward pass."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._inputs: dict[str, Any] = {}
        self._output: Any = None

    def __call__(self, **inputs: Any) -> Any:
        if self._output is None or any(self._inputs.get(name) is not value for name, value in inputs.items()):
            self._inputs, self._output = inputs, self._model(**inputs)
        return self._output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _refuse_non_finite(session: Session, loss: float, grad_norm: float, rate: float) -> None:
    if all(abs(figure) < float("inf") for figure in (loss, grad_norm)):
        return
    what = f"the loss is {loss}" if not abs(loss) < float("inf") else f"the norm of the gradients is {grad_norm}"
    smaller = session.peak_rate / 10
    raise NonFiniteLoss(
        f"{what} at step {session.state.step + 1} of {session.total}, at learning rate {rate:.3g}",
        where="training",
        fix=f"Try training.learning_rate={smaller:.1e}, a longer training.warmup, or training.max_grad_norm=1"
        + ("; or training.precision=fp32." if session.precision == "bf16" else "."),
    )


def _count_step(session: Session, rows: np.ndarray, targets: int, seconds: float) -> dict[str, Any]:
    """Add a completed step to the state; returns its history fields."""
    state, lengths = session.state, session.train.lengths[rows]
    tokens, work = int(lengths.sum()), session.flops.of(lengths, targets)
    state.step += 1
    state.step_seconds += seconds
    state.rows += len(rows)
    state.tokens += tokens
    state.flops += work
    return {
        "step": state.step,
        "epoch": state.step / session.sampler.steps_per_epoch,
        "tokens_per_second": tokens / seconds,
        "samples_per_second": len(rows) / seconds,
        "mfu": hardware.compute_used_share(work / seconds, session.peak_flops),
        "memory_bytes": hardware.peak_memory(session.device),
    }


def main(spec_file: str, events: str) -> int:
    """Train; returns the exit status, 0 for success. Errors are sent to the parent as events."""
    spec = json.loads(Path(spec_file).read_text("utf8"))
    send = wire.make_sender(int(events))
    try:
        import_libraries(spec)
        run(spec, send)
    except HoneError as error:
        send(wire.error_to_event(error))
        return 1
    except (MemoryError, RuntimeError) as fault:
        if not hardware.is_out_of_memory(fault):
            raise
        smaller = choices.halve_micro_batch(Path(spec["out"]))
        send({"type": "out_of_memory", "micro_batch_size": smaller, "detail": str(fault)})
        return 1
    except (OSError, SafetensorError) as fault:
        if not describe_disk_fault(fault):
            raise
        send(wire.error_to_event(StoreError(f"training could not write: {fault}", where=spec["out"], fix=_FREE_SPACE)))
        return 1
    return 0


_FREE_SPACE = "Free or extend the disk and run again: training goes on from its last complete checkpoint."

if __name__ == "__main__":
    wire.end_with_parent()
    sys.exit(main(*sys.argv[1:]))
