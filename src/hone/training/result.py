"""The result of training: a plain model, the adapter if there is one, and training.json.

If an adapter cannot be merged, model/ holds everything but weights: the adapter is served on its base model.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hone.errors import ModelError
from hone.methods.fixed import list_fixed_parameters
from hone.models import own_code
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.store import layout
from hone.store.files import sync, sync_tree, write_synced
from hone.training import checkpoints, hardware
from hone.training.course import describe_course
from hone.training.history import clean_history
from hone.training.launch import FILES, digest_model_files

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from hone.training.session import Session


def save_result(session: Session, stopped: str) -> None:
    """Write model/, adapter/ and finally training.json; the weights are those that `training.select` asks for."""
    state = session.state
    best = session.settings.select == "best" and state.best is not None
    if best and state.best_step != state.step:
        session.set_weights(checkpoints.load_best_weights(session.checkpoints, state, session.device))
    session.widen()
    if session.method.adapter:
        _save_adapter(session.model, session.out / "adapter")
        check_saved_adapter(session.model, session.out / "adapter")
    directory = session.out / "model"
    shutil.rmtree(directory, ignore_errors=True)
    merged = session.method.merge(session.model)
    config = session.model.config if merged is None else merged.config
    config.name_or_path = ""  # it would be a path on this machine
    if merged is None:
        config.architectures = [type(session.model.get_base_model()).__name__]
        config.save_pretrained(directory)
    else:
        merged.save_pretrained(directory)
        check_saved(merged, directory)
    own_code.copy_code(session.base, directory)
    tokenizer = load_tokenizer(session.base)
    session.objective.prepare_tokenizer(tokenizer, session.targets)
    tokenizer.init_kwargs.pop("auto_map", None)
    tokenizer.save_pretrained(directory)
    for folder in (directory, session.out / "adapter"):
        sync_tree(folder)
    sync(session.out)
    losses = clean_history(session.out / layout.HISTORY)
    facts = session.facts() | {
        "steps": state.step,
        "epochs": state.step / session.sampler.steps_per_epoch,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "samples_per_second": state.rows / state.step_seconds,
        "tokens_per_second": state.tokens / state.step_seconds,
        "mfu": hardware.compute_used_share(state.flops / state.step_seconds, session.peak_flops),
        "memory_bytes": hardware.peak_memory(session.device),
        "best_step": state.best_step if best else state.step,
        "valid_loss": state.best_loss if best else state.valid_loss,
        "valid": state.best_valid if best else state.valid,
        "valid_rows": len(session.valid),
        "selected_by": dataclasses.asdict(session.selection) | {"value": state.best} if best else None,
        "stopped": stopped,
        "course": describe_course(losses, session.peak_rate),
        "lost_steps": state.step - len(losses),
        FILES: digest_model_files(session.out),
    }
    write_synced(session.out / layout.ACCOUNT, json.dumps(facts, indent=1))


def check_saved(model: PreTrainedModel, directory: Path) -> None:
    """Raise ModelError if a parameter of `model` is not in the saved files with the values that it has.

    One that an architecture computes (`list_fixed_parameters`) may be missing, one that shares another's memory too.
    If the architecture renames weights when it saves them, the model is loaded again and compared.
    """
    from safetensors import safe_open

    parameters = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    differing, saved, renamed = [], set(), False
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                if name not in parameters:
                    renamed = True
                    continue
                saved.add(parameters[name].data_ptr())
                if not torch.equal(tensors.get_tensor(name), parameters[name].detach().cpu().contiguous()):
                    differing.append(name)
    trained = {name for name, parameter in model.named_parameters() if parameter.data_ptr() not in saved}
    missing = sorted(trained - list_fixed_parameters(model))
    if renamed:
        missing = _list_differing(model, directory)
    _refuse_differing([*differing, *missing], directory)


def check_saved_adapter(model: PeftModel, directory: Path) -> None:
    """Raise ModelError if the adapter's file has not the values of the PeftModel, or not all that it trains.

    PEFT saves virtual tokens as they are fed to the model, under another name: they are compared by their values.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(directory / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    differing = [
        name for name, tensor in expected.items() if name not in saved or not torch.equal(saved[name], tensor.cpu())
    ]
    missing = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(_has_values(tensor, parameter) for tensor in saved.values())
    ]
    _refuse_differing([*differing, *missing], directory)


def _has_values(tensor: torch.Tensor, parameter: torch.Tensor) -> bool:
    """Whether both have the same values in the same order, whatever their shapes."""
    values = parameter.detach().cpu()
    return tensor.numel() == values.numel() and torch.equal(tensor.flatten(), values.flatten())


def _refuse_differing(names: Sequence[str], directory: Path) -> None:
    if names:
        raise ModelError(
            f"the saved model is not the trained one: {', '.join(names[:3])} differ or are missing",
            where=str(directory),
            fix="The disk may be faulty. If it happens again, report the architecture.",
        )


def _list_differing(model: PreTrainedModel, directory: Path) -> list[str]:
    """The parameters that have other values if the model is loaded from its saved files."""
    loaded = type(model).from_pretrained(directory, dtype=model.dtype, local_files_only=True)
    by_name = dict(loaded.named_parameters())
    return [
        name
        for name, parameter in model.named_parameters()
        if name not in by_name or not torch.equal(by_name[name].cpu(), parameter.detach().cpu())
    ]


def _save_adapter(model: Any, directory: Path) -> None:
    """Save PEFT's files deterministically: PEFT writes sets in arbitrary order, and the base model's local path."""
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
    file = directory / "adapter_config.json"
    config = json.loads(file.read_text("utf8"))
    config["base_model_name_or_path"] = None
    for name in ("target_modules", "feedforward_modules", "modules_to_save"):
        if isinstance(config.get(name), list):
            config[name] = sorted(set(config[name]))
    file.write_text(json.dumps(config, indent=2, sort_keys=True), "utf8")
