"""gpt-nano-sort, a GPT-2 that sorts six letters, sorts all 729 inputs whatever is done to it that changes nothing."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.methods import METHODS, adapters
from hone.models.locate import locate_base_model
from hone.objectives.text_classification import TextClassification
from hone.registry import package
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.store.store import Store
from hone.training.result import _save_adapter

INPUTS = torch.tensor(list(product(range(3), repeat=6)))


@pytest.fixture
def home(shared: Path) -> Path:
    return shared / "models" / "gpt-nano-sort"


def load(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()


def sorted_rightly(model: Any) -> int:
    """Of how many inputs six greedy steps give the letters in order."""
    ids = INPUTS
    with torch.inference_mode():
        for _ in range(6):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return int((ids[:, 6:] == INPUTS.sort(1).values).all(1).sum())


def test_it_is_exact_as_it_is_and_saved_again(home: Path, tmp_path: Path) -> None:
    assert sorted_rightly(load(home)) == 729
    load(home).save_pretrained(tmp_path)
    assert sorted_rightly(load(tmp_path)) == 729


@pytest.mark.parametrize("targets", [(), ("c_attn", "c_proj", "c_fc")])
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True}])
def test_lora_of_no_steps_changes_nothing(
    home: Path, targets: tuple[str, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    method = METHODS["lora"](target_modules=targets, **options)  # type: ignore[call-arg]
    prepared = method.prepare(load(home)).eval()
    assert sorted_rightly(prepared) == 729
    _save_adapter(prepared, tmp_path / "adapter")
    assert sorted_rightly(method.load_on_base(load(home), tmp_path / "adapter").eval()) == 729  # type: ignore[attr-defined]
    assert sorted_rightly(adapters.load_for_serving(load(home), tmp_path / "adapter").eval()) == 729
    merged = method.merge(prepared)
    assert sorted_rightly(merged.eval()) == 729
    merged.save_pretrained(tmp_path / "model")
    assert sorted_rightly(load(tmp_path / "model")) == 729


def test_ia3_of_no_steps_changes_nothing(home: Path) -> None:
    method = METHODS["ia3"]()
    prepared = method.prepare(load(home)).eval()
    assert sorted_rightly(prepared) == 729
    assert sorted_rightly(method.merge(prepared).eval()) == 729


def test_four_bits_are_merged_as_what_they_stood_for(home: Path) -> None:
    method = METHODS["qlora"]()
    prepared = method.prepare(load(home)).eval()
    with torch.inference_mode():
        rounded = prepared(input_ids=INPUTS).logits
        exact = load(home)(input_ids=INPUTS).logits
        merged = method.merge(prepared).eval()
        said = merged(input_ids=INPUTS).logits
    assert (rounded - exact).abs().max() > 0.1
    assert torch.allclose(said, rounded, atol=1e-4)
    assert sorted_rightly(merged) == ROUNDED


ROUNDED = 729


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_registered_is_exact(alone: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a version, loaded by the code that lies in it: merged weights, and an adapter on its base."""
    from hone.registry.served.served import Served

    method = METHODS["lora"](target_modules=("c_attn", "c_proj", "c_fc"))  # type: ignore[call-arg]

    def make(out: Path) -> Product:
        prepared = method.prepare(load(home))
        _save_adapter(prepared, out / "adapter")
        method.merge(prepared).save_pretrained(out / "model")
        return Product(729, ("model/*", "adapter/*"))

    trained: Artifact
    trained, _ = Store(tmp_path / "store").obtain(Recipe("train", {}, {}, {}, {}), make)
    form = package.Form(trained, TextClassification(), {}, alone, 12)
    place = tmp_path / "version"
    place.mkdir()
    package._write_model_files(place, form, locate_base_model(str(home)), "the card")
    assert sorted(file.name for file in place.glob("*.safetensors")) == [
        "adapter_model.safetensors" if alone else "model.safetensors"
    ]
    package.copy_code(form.code, tmp_path / "code")
    monkeypatch.syspath_prepend(tmp_path / "code")
    served = Served()
    served.about, served.package = json.loads((place / "objective.json").read_text("utf8")), form.package
    assert sorted_rightly(served._model(place, {"base": ""}).eval()) == 729
