from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    BertForNextSentencePrediction,
    DistilBertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MarianConfig,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    RoFormerConfig,
    RoFormerForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from hone.config.file import parse_config
from hone.errors import ModelError
from hone.methods import METHODS
from hone.methods.fixed import list_fixed_parameters
from hone.methods.freeze import Freeze
from hone.methods.full import Full
from hone.methods.lora import Lora
from hone.pipeline.stage import build_part
from hone.training.result import check_saved
from hone.training.trained import list_trained_modules

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "ingest": {"source": {"kind": "files", "paths": ["rows.csv"]}},
    "model": {"base": "some/model"},
}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(vocab_size=50, **SMALL),
    "distilbert": DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=32),
    "llama": LlamaConfig(vocab_size=50, pad_token_id=0, **SMALL),
    "gpt2": GPT2Config(
        vocab_size=50,
        n_embd=16,
        n_layer=3,
        n_head=2,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "bart": BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=0,
        eos_token_id=2,
    ),
}


def model(kind: str = "bert") -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(CONFIGS[kind])


def moving(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 2], [8, 9, 10, 2]])
    with torch.no_grad():
        answer: torch.Tensor = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return answer


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_needs_no_options_and_describes_those_it_has(kind: str) -> None:
    config = parse_config(MINIMAL | {"method": {"kind": kind}})
    assert build_part(METHODS, config.method) == METHODS[kind]()
    assert [option.name for option in fields(METHODS[kind]) if not option.metadata["description"]] == []


def test_full_moves_everything() -> None:
    plain = model()
    plain.bert.embeddings.requires_grad_(False)
    assert list_fixed_parameters(plain) == set()
    trained = Full().prepare(plain)
    assert moving(trained) == {name for name, _ in plain.named_parameters()}
    assert Full().merge(trained) is plain


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("bert", ("bert.pooler.", "classifier.")),
        ("distilbert", ("pre_classifier.", "classifier.")),
        ("llama", ("model.norm.", "score.")),
        ("gpt2", ("transformer.ln_f.", "score.")),
        ("bart", ("classification_head.",)),
    ],
)
def test_freeze_moves_the_head_alone(kind: str, head: tuple[str, ...]) -> None:
    names = moving(Freeze().prepare(model(kind)))
    assert names
    assert {next((part for part in head if name.startswith(part)), name) for name in names} == set(head)


ADAPTED = ("q_proj.lora_A", "q_proj.lora_B", "v_proj.lora_A", "v_proj.lora_B")


@pytest.mark.parametrize(
    ("kind", "method", "modules"),
    [
        ("bert", Full(), []),
        ("bert", Freeze(), ["bert.pooler", "classifier"]),
        ("bert", Freeze(layers=2), ["bert.encoder.layer.1-2", "bert.pooler", "classifier"]),
        ("gpt2", Freeze(layers=1), ["transformer.h.2", "transformer.ln_f", "score"]),
        ("bart", Freeze(layers=1), ["model.decoder.layers.2", "classification_head"]),
        ("llama", Lora(rank=2), [*(f"model.layers.0-2.self_attn.{part}" for part in ADAPTED), "score"]),
    ],
)
def test_what_is_trained_is_named(kind: str, method: Any, modules: list[str]) -> None:
    assert list_trained_modules(method.prepare(model(kind))) == modules


@pytest.mark.parametrize("kind", ["marian", "pegasus", "roformer"])
def test_full_leaves_positions_that_the_architecture_holds_fixed(kind: str, tmp_path: Path) -> None:
    """Loaded, all their parameters are marked as trainable; Marian does not save its positions."""
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 50, "pad_token_id": 0}
    common = {"vocab_size": 50, "max_position_embeddings": 32}
    new = {
        "marian": lambda: MarianMTModel(MarianConfig(**sizes, decoder_start_token_id=0, eos_token_id=1)),
        "pegasus": lambda: PegasusForConditionalGeneration(PegasusConfig(**sizes)),
        "roformer": lambda: RoFormerForSequenceClassification(RoFormerConfig(**common, **SMALL)),
    }[kind]()
    new.save_pretrained(tmp_path / "base")
    plain = type(new).from_pretrained(tmp_path / "base")
    names = {name for name, _ in plain.named_parameters()}
    fixed = {name for name in names if "embed_positions" in name}
    assert fixed and all(parameter.requires_grad for parameter in plain.parameters())
    trained = Full().prepare(plain)
    assert moving(trained) == names - fixed
    trained.save_pretrained(tmp_path / "trained")
    check_saved(trained, tmp_path / "trained")
    with torch.no_grad():
        next(parameter for parameter in trained.parameters() if parameter.requires_grad).add_(1)
    with pytest.raises(ModelError, match="the saved model is not the trained one"):
        check_saved(trained, tmp_path / "trained")


def test_a_weight_that_is_not_saved_is_missed(tmp_path: Path) -> None:
    plain = model()
    plain.extra = torch.nn.Linear(2, 2)
    plain.save_pretrained(tmp_path)
    check_saved(plain, tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor for name, tensor in kept.items() if "extra" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"extra\.bias, extra\.weight differ or are missing"):
        check_saved(plain, tmp_path)


def test_weights_that_are_saved_under_other_names_are_compared_as_they_load(tmp_path: Path) -> None:
    """BERT's first names for its norms, which transformers still reads."""
    plain = model()
    plain.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in load_file(file).items()}
    save_file(old, file, metadata={"format": "pt"})
    check_saved(plain, tmp_path)
    first = next(name for name in old if name.endswith("gamma"))
    save_file(old | {first: old[first] + 1}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"LayerNorm\.weight differ"):
        check_saved(plain, tmp_path)


def tied_gpt2() -> Any:
    return GPT2LMHeadModel(CONFIGS["gpt2"])


def tied_t5() -> Any:
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 3, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=50, tie_word_embeddings=True, **sizes))
    assert model.lm_head.weight is model.shared.weight
    return model


@pytest.mark.parametrize(
    ("tied", "numbers", "modules"),
    [
        (tied_gpt2, 32, ["transformer.h.2", "transformer.ln_f"]),
        (tied_t5, 32, ["decoder.block.2", "decoder.final_layer_norm"]),
    ],
)
def test_freeze_of_a_model_whose_head_is_its_embedding_needs_layers(
    tied: Any, numbers: int, modules: list[str]
) -> None:
    with pytest.raises(ModelError, match=f"no head of its own: without layers, freeze would train {numbers} numbers"):
        Freeze().prepare(tied())
    assert list_trained_modules(Freeze(layers=1).prepare(tied())) == modules


def test_freeze_moves_the_top_layers_that_are_asked_for() -> None:
    names = moving(Freeze(layers=2).prepare(model()))
    layers = {name.split(".")[3] for name in names if name.startswith("bert.encoder.layer.")}
    assert layers == {"1", "2"}
    assert not any("embeddings" in name for name in names)
    lowest = {name for name, _ in model().named_parameters() if name.startswith("bert.encoder.layer.1.")}
    assert lowest <= names


def test_freeze_of_more_layers_than_there_are_says_how_many() -> None:
    with pytest.raises(ModelError, match=r"method.layers is 4, and the model has 3 layers \(bert.encoder.layer\)"):
        Freeze(layers=4).prepare(model())


def test_freeze_without_a_list_of_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no list of layers"):
        Freeze().prepare(torch.nn.Sequential(torch.nn.Linear(2, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CONFIGS)
def test_lora_moves_adapters_and_the_whole_head(kind: str) -> None:
    plain = model(kind)
    beside = {
        name for name, _ in plain.named_parameters() if not name.startswith((f"{plain.base_model_prefix}.", "model."))
    }
    names = {name.removeprefix("base_model.model.") for name in moving(Lora(rank=2).prepare(plain))}
    adapters = {name for name in names if ".lora_" in name}
    heads = {name.replace("modules_to_save.default.", "") for name in names - adapters}
    assert adapters
    assert beside <= heads
    assert all(name in beside or ".pooler." in name for name in heads)


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True, "rank": 8}])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_merged_computes_what_the_trained_model_does(kind: str, options: dict[str, Any]) -> None:
    method = Lora(**options)
    before = logits(model(kind))
    trained = method.prepare(model(kind))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    adapted = logits(trained)
    merged = method.merge(trained)
    assert (adapted - before).abs().max() > 1e-3
    assert torch.allclose(logits(merged), adapted, atol=1e-5)
    assert type(merged) is type(model(kind))
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in model(kind).named_parameters()}


def test_lora_takes_the_layers_named() -> None:
    names = moving(Lora(target_modules=("intermediate.dense",)).prepare(model()))
    assert {name.split(".lora_")[0].split(".", 6)[-1] for name in names if ".lora_" in name} == {"intermediate.dense"}


def test_a_layer_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ModelError) as fault:
        Lora(target_modules=("query", "q_proj")).prepare(model())
    assert "no linear layer of the model is called q_proj" in str(fault.value)
    assert "There are query, key, value, dense" in str(fault.value)


def test_lora_on_a_model_without_a_known_head_is_refused() -> None:
    with pytest.raises(ModelError, match="not supported for this class of model"):
        Lora().prepare(BertForNextSentencePrediction(CONFIGS["bert"]))
