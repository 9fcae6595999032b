"""What a training saves is what it trained: a file with other values, or without some, ends it with an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from hone.errors import ModelError
from hone.training import hardware, loop
from tests.families import METHODS
from tests.tiny_training import specification

Tensors = dict[str, torch.Tensor]
# The folders with weights, by method.
FOLDERS = {"full": ["model"], "freeze": ["model"], "prompt": ["adapter"], "prefix": ["adapter"]}
SAVED = [(method, folder) for method in METHODS for folder in FOLDERS.get(method, ["adapter", "model"])]


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "peak_flops", lambda *_: 1e12)  # measured, it takes longer than the training


def train(spec: dict[str, Any]) -> None:
    loop.run(spec, lambda _: None)


def change_saved(monkeypatch: pytest.MonkeyPatch, folder: str, change: Callable[[Tensors], Tensors]) -> None:
    """Change what is written into `folder`."""
    kind: Any = PeftModel if folder == "adapter" else PreTrainedModel
    save = kind.save_pretrained

    def save_changed(model: Any, directory: Path, **options: Any) -> None:
        save(model, directory, **options)
        if Path(directory).name == folder:
            [file] = Path(directory).glob("*.safetensors")
            save_file(change(load_file(file)), file, metadata={"format": "pt"})

    monkeypatch.setattr(kind, "save_pretrained", save_changed)


def move_last(tensors: Tensors) -> Tensors:
    *_, name = sorted(tensors)
    return tensors | {name: tensors[name] + 1}


def drop_last(tensors: Tensors) -> Tensors:
    return {name: tensors[name] for name in sorted(tensors)[:-1]}


@pytest.mark.parametrize(("method", "folder"), SAVED)
def test_weights_that_are_not_those_that_were_trained_end_the_training(
    method: str, folder: str, base: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = (method, METHODS[method])
    train(specification(tokens, tmp_path / "sound", base, method=way, max_steps=1))
    assert {file.parent.name for file in (tmp_path / "sound").glob("*/*.safetensors")} >= {folder}
    change = drop_last if method in ("full", "prompt") else move_last
    change_saved(monkeypatch, folder, change)
    with pytest.raises(ModelError, match="the saved model is not the trained one"):
        train(specification(tokens, tmp_path / "damaged", base, method=way, max_steps=1))


def test_a_head_that_peft_does_not_save_is_missed(
    base: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PEFT does without a task type: the head is trained, and is in no file."""
    from hone.methods.lora import Lora

    prepare = Lora.prepare

    def prepare_with_norm(method: Lora, model: Any) -> Any:
        adapted = prepare(method, model)
        next(p for name, p in adapted.named_parameters() if "LayerNorm" in name).requires_grad_(True)
        return adapted

    monkeypatch.setattr(Lora, "prepare", prepare_with_norm)
    with pytest.raises(ModelError, match=r"LayerNorm\.weight differ or are missing"):
        train(specification(tokens, tmp_path / "out", base, method=("lora", {"rank": 2}), max_steps=1))
