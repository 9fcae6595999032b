"""One training, built from its specification: model, rows, optimizer and progress."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hone.errors import CheckpointError, ConfigError, DataError
from hone.methods import METHODS
from hone.methods.full import Full
from hone.methods.method import Method
from hone.models import own_code
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective, Targets
from hone.splits import TRAIN, VALID
from hone.store import layout
from hone.training import checkpoints, choices, flops, hardware, randomness, reference
from hone.training.checkpoints import Checkpoint, State, Tensors
from hone.training.embeddings import narrow_embedding
from hone.training.forward import prepare_forward
from hone.training.history import History
from hone.training.optimization import make_optimizer
from hone.training.sampler import Sampler
from hone.training.schedule import evaluation_steps, total_steps
from hone.training.selection import Selection, choose_selection
from hone.training.settings import Settings
from hone.training.tokens import TokenFile
from hone.training.trained import list_trained_modules

# Number of rows that show whether an objective feeds the model other tokens than those of the rows.
_PROBED_ROWS = 256


@dataclass
class Session:
    """The state of the loop. `forward` is `model`, compiled if configured; `widen` undoes `narrow_embedding`."""

    out: Path
    base: Path
    objective: Objective
    targets: Targets
    method: Method
    settings: Settings
    peak_rate: float
    selection: Selection
    device: torch.device
    precision: str
    peak_flops: float
    train: TokenFile
    valid: TokenFile
    sampler: Sampler
    total: int
    evaluate_after: frozenset[int]
    micro_batch_size: int
    model: Any
    forward: Any
    widen: Callable[[], None]
    pad_id: int
    parameters: int
    trainable: int
    trained: list[str]
    flops: flops.Flops
    optimizer: torch.optim.Optimizer
    state: State
    history: History

    @property
    def accumulation(self) -> int:
        """Micro-batches of one optimizer step."""
        return -(-self.settings.batch_size // self.micro_batch_size)

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.out / "checkpoints"

    def facts(self) -> dict[str, Any]:
        """The facts that are known before the first step, for events and training.json."""
        return {
            "steps": self.total,
            "rows": len(self.train),
            "device": hardware.device_name(self.device),
            "precision": self.precision,
            "learning_rate": self.peak_rate,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "trained": self.trained,
            "micro_batch_size": self.micro_batch_size,
            "accumulation": self.accumulation,
            "resumed_from": list(choices.load_choices(self.out).resumed_from),
        }

    def weights(self) -> Tensors:
        """The trainable weights and the persistent buffers, by name; they share the model's memory."""
        return list_trainable_tensors(self.model)

    def set_weights(self, weights: Tensors) -> None:
        """Copy `weights`, from `weights()`, into the model; raises CheckpointError if they are of another model."""
        current = self.weights()
        differing = [name for name in current if name not in weights or weights[name].shape != current[name].shape]
        if differing:
            raise CheckpointError(
                f"a checkpoint is of another model: {', '.join(differing[:3])} differ",
                where=str(self.checkpoints),
                fix="Delete this directory to train from the beginning.",
            )
        for name, tensor in current.items():
            tensor.copy_(weights[name])

    def save_checkpoint(self) -> None:
        """Save a checkpoint of the current state."""
        self.state.history = self.history.sync()
        parts = self.weights(), _collect_moments(self.model, self.optimizer), randomness.get_generator_states()
        checkpoints.save_checkpoint(self.checkpoints, Checkpoint(self.state, *parts))

    def resume(self) -> None:
        """Restore the last complete checkpoint, if there is one, and cut off the history written after it."""
        checkpoint = checkpoints.load_latest_checkpoint(self.checkpoints, self.device)
        if checkpoint:
            self.state = checkpoint.state
            self.set_weights(checkpoint.weights)
            _set_moments(self.model, self.optimizer, checkpoint.optimizer)
            randomness.restore_generators(checkpoint.random)
            earlier = choices.load_choices(self.out)
            resumed_from = (*earlier.resumed_from, checkpoint.state.step)
            choices.save_choices(self.out, dataclasses.replace(earlier, resumed_from=resumed_from))
        self.history.cut(self.state.history)


def build(spec: Mapping[str, Any]) -> Session:
    """Build the training that `spec` (written by launch.py) describes; resumes it if there is a checkpoint."""
    settings = Settings(**spec["settings"])
    out, base, tokens = (Path(spec[name]) for name in ("out", "base", "tokens"))
    own_code.allow_code(spec.get("code", ""))
    objective, method = _make_part(OBJECTIVES, spec["objective"]), _make_part(METHODS, spec["method"])
    train, valid = _open_splits(tokens, settings)
    device = hardware.choose_device(settings.device)
    hardware.set_up_device(device)
    machine = Path(spec["machine"]) if spec.get("machine") else None
    precision, micro_batch_size = _choose_precision_and_batch(out, settings, device, machine)
    peak = hardware.peak_flops(device, precision)

    randomness.seed_generators(settings.seed)
    targets = json.loads((tokens / layout.TARGETS).read_text("utf8"))
    plain = objective.load_model(base, targets)
    pad_id = int(plain.config.pad_token_id or 0)
    if objective.needs_reference_model:
        base_model = reference.ReferenceModel(objective, plain.to(device), pad_id, micro_batch_size, precision)
        files = (tokens / layout.tokens_file(split) for split in (TRAIN, VALID))
        train, valid = (reference.add_reference_columns(file, out, base_model) for file in files)
    model = method.prepare(plain)
    objective.check_model(model, f"{type(method).__name__} on {base}")
    parameters, trainable = _count_parameters(model)
    trained = list_trained_modules(model)
    widen = _narrow_if_exact(plain, objective, train, valid, pad_id)
    model.to(device)
    sampler = Sampler(train.lengths, settings.batch_size, settings.seed, group_by_length=settings.group_by_length)
    total = total_steps(settings, sampler.steps_per_epoch)
    session = Session(
        out=out,
        base=base,
        objective=objective,
        targets=targets,
        method=method,
        settings=settings,
        peak_rate=choose_peak_rate(settings, objective, method),
        selection=choose_selection(objective, settings.metric),
        device=device,
        precision=precision,
        peak_flops=peak,
        train=train,
        valid=valid,
        sampler=sampler,
        total=total,
        evaluate_after=evaluation_steps(settings, total, sampler.steps_per_epoch) if len(valid) else frozenset(),
        micro_batch_size=micro_batch_size,
        model=model,
        forward=torch.compile(model, dynamic=True) if settings.compile else model,
        widen=widen,
        pad_id=pad_id,
        parameters=parameters,
        trainable=trainable,
        trained=trained,
        flops=flops.measure_flops(objective, model, train, pad_id, device),
        optimizer=make_optimizer(model, settings.weight_decay, settings.layer_decay, settings.optimizer),
        state=State(),
        history=History(out / layout.HISTORY),
    )
    prepare_forward(model, plain, settings)
    session.resume()
    return session


def list_trainable_tensors(model: Any) -> Tensors:
    """The trainable weights of `model` and its persistent buffers, by name; they share its memory."""
    persistent = model.state_dict(keep_vars=True)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: b for name, b in model.named_buffers() if name in persistent}
    return {name: tensor.detach() for name, tensor in (weights | buffers).items()}


def choose_peak_rate(settings: Settings, objective: Objective, method: Method) -> float:
    """The peak learning rate: as configured, else the method's default for the objective."""
    default: float = getattr(method, "default_learning_rate", Full.default_learning_rate)
    return settings.learning_rate or default * objective.rate_factor


def _make_part(table: Mapping[str, Any], kind_and_options: tuple[str, Mapping[str, Any]]) -> Any:
    kind, options = kind_and_options
    return table[kind](**options)


def _open_splits(tokens: Path, settings: Settings) -> tuple[TokenFile, TokenFile]:
    train, valid = TokenFile(tokens / layout.tokens_file(TRAIN)), TokenFile(tokens / layout.tokens_file(VALID))
    if not len(train):
        raise DataError(
            "there are no rows to train on",
            where=str(tokens / layout.tokens_file(TRAIN)),
            fix="See what curate dropped.",
        )
    if settings.patience and not len(valid):
        raise ConfigError(
            "early stopping needs validation rows, and there are none",
            where=f"training.patience {settings.patience}",
            fix="Set curation.split.valid above 0, or training.patience to 0.",
        )
    return train, valid


def _choose_precision_and_batch(
    out: Path, settings: Settings, device: torch.device, machine: Path | None
) -> tuple[str, int]:
    """Precision and micro-batch size: those of an earlier attempt, else chosen now and saved for the next one."""
    earlier = choices.load_choices(out)
    precision = earlier.precision or hardware.choose_precision(settings.precision, device, machine)
    configured = min(settings.micro_batch_size or settings.batch_size, settings.batch_size)
    micro_batch_size = earlier.micro_batch_size or configured
    choices.save_choices(out, dataclasses.replace(earlier, precision=precision, micro_batch_size=micro_batch_size))
    return precision, micro_batch_size


def _count_parameters(model: Any) -> tuple[int, int]:
    """The numbers of all parameters and of the trainable ones."""
    parameters = list(model.parameters())
    return flops.count_weights(parameters), flops.count_weights([p for p in parameters if p.requires_grad])


def _narrow_if_exact(
    model: Any, objective: Objective, train: TokenFile, valid: TokenFile, pad_id: int
) -> Callable[[], None]:
    """Narrow the embedding if batches contain only tokens of their rows; returns the undo function."""
    import numpy as np

    if not _as_encoded(objective, train, pad_id):
        return lambda: None
    return narrow_embedding(model, np.union1d(train.used_ids(), valid.used_ids()), pad_id)


def _as_encoded(objective: Objective, train: TokenFile, pad_id: int) -> bool:
    """Whether batches contain only tokens of their rows; masked language modelling, for one, adds others."""
    rows = train.rows(range(min(_PROBED_ROWS, len(train))))
    encoded = {pad_id}.union(*(ids.tolist() for ids in rows["input_ids"]))
    return encoded.issuperset(objective.collate(rows, pad_id)["input_ids"].flatten().tolist())


def _collect_moments(model: Any, optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's state by parameter and its own names: `<name>/exp_avg`, `<name>/exp_avg_sq`, `<name>/step`."""
    moments = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensor = torch.as_tensor(value)  # bitsandbytes counts steps by a number
            shared = key.startswith("qmap")  # its tables of numbers, one for all parameters
            moments[f"{name}/{key}"] = tensor.clone() if shared else tensor
    return moments


def _set_moments(model: Any, optimizer: torch.optim.Optimizer, moments: Tensors) -> None:
    parameters = dict(model.named_parameters())
    for key, tensor in moments.items():
        name, _, kind = key.rpartition("/")
        is_number = kind == "step" and not isinstance(optimizer, torch.optim.AdamW)
        optimizer.state[parameters[name]][kind] = int(tensor) if is_number else tensor.clone()
