"""How a model runs forward in training, on trainings that differ in that alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hone.errors import ConfigError
from hone.training import loop
from hone.training.forward import set_training_mode
from hone.training.optimization import make_optimizer
from hone.training.session import build
from tests.tiny_bases import tiny_bert, tiny_llama
from tests.tiny_training import specification, write_tokens


def losses(tokens: Path, out: Path, base: Path, **settings: Any) -> list[float]:
    """The losses of the steps and evaluations."""
    loop.run(specification(tokens, out, base, max_steps=6, evaluations=2, **settings), lambda _: None)
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text("utf8").splitlines()]
    return [line[name] for line in lines for name in ("loss", "valid_loss") if name in line]


@pytest.mark.parametrize("method", [("full", {}), ("lora", {"rank": 4}), ("freeze", {"layers": 1})])
@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_recomputed_activations_give_the_same_losses(make: Any, method: Any, tmp_path: Path) -> None:
    """With dropout: what is recomputed drops the same."""
    base = make(tmp_path / "base")
    tokens = write_tokens(tmp_path / "tokens", base)
    kept = losses(tokens, tmp_path / "kept", base, method=method)
    recomputed = losses(tokens, tmp_path / "recomputed", base, method=method, gradient_checkpointing=True)
    assert recomputed == kept
    config = json.loads((tmp_path / "recomputed/model/config.json").read_text("utf8"))
    assert config == json.loads((tmp_path / "kept/model/config.json").read_text("utf8"))


def test_activations_are_recomputed_without_dropout_too(base: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(base)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    set_training_mode(model, dropout=False)
    assert {type(module).__name__ for module in model.modules() if module.training} == {"BertModel", "BertLayer"}
    set_training_mode(model, dropout=True)
    assert all(module.training for module in model.modules())


def test_two_implementations_of_attention_agree(base: Path, tokens: Path, tmp_path: Path) -> None:
    plain = losses(tokens, tmp_path / "auto", base)
    assert losses(tokens, tmp_path / "eager", base, attention="eager") == pytest.approx(plain, abs=1e-4)
    assert losses(tokens, tmp_path / "sdpa", base, attention="sdpa") == pytest.approx(plain, abs=1e-4)
    with pytest.raises(ConfigError, match="BertForSequenceClassification cannot run with flash_attention_2") as raised:
        losses(tokens, tmp_path / "flash", base, attention="flash_attention_2")
    assert raised.value.where == "training.attention"


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_the_model_runs_with_the_attention_that_is_named(
    attention: str, base: Path, tokens: Path, tmp_path: Path
) -> None:
    session = build(specification(tokens, tmp_path / "out", base, attention=attention))
    assert session.model.config._attn_implementation == attention


def test_noise_on_the_embeddings_is_added_in_training_alone(base: Path, tokens: Path, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-12}  # nothing is learned: the validation shows no noise, the steps do
    plain = losses(tokens, tmp_path / "plain", base, **settings)
    noisy = losses(tokens, tmp_path / "noisy", base, neftune=20.0, **settings)
    again = losses(tokens, tmp_path / "again", base, neftune=20.0, **settings)
    assert noisy == again
    assert noisy[-1] == pytest.approx(plain[-1], abs=1e-6)
    assert noisy[0] != pytest.approx(plain[0], abs=1e-4)


def test_lower_layers_learn_more_slowly(base: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    layers = model.config.num_hidden_layers
    optimizer = make_optimizer(model, 0.01, 0.5)
    scale = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: scale[id(p)] for name, p in model.named_parameters()}
    assert by_name["classifier.weight"] == by_name["bert.pooler.dense.weight"] == 1
    for layer in range(layers):
        assert by_name[f"bert.encoder.layer.{layer}.output.dense.weight"] == 0.5 ** (layers - 1 - layer)
    assert by_name["bert.embeddings.word_embeddings.weight"] == 0.5**layers
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}
    assert [group["scale"] for group in make_optimizer(nn.Linear(2, 2), 0.01).param_groups] == [1, 1]


def test_a_decayed_learning_rate_reaches_the_steps(base: Path, tokens: Path, tmp_path: Path) -> None:
    losses(tokens, tmp_path / "out", base, layer_decay=1e-6)
    trained, untrained = load_file(tmp_path / "out/model/model.safetensors"), load_file(base / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(trained[f"bert.{name}"], untrained[name])
    assert (trained[f"bert.{name}"] - untrained[name]).abs().max() < 1e-6
    assert (trained["bert.pooler.dense.weight"] - untrained["pooler.dense.weight"]).abs().max() > 1e-3
