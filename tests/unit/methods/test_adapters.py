"""The methods of PEFT on real architectures: what moves, what is merged, what is served, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from hone.errors import ModelError
from hone.methods import METHODS, adapters
from hone.methods.ia3 import Ia3
from hone.methods.lora import Lora
from hone.methods.method import AdapterMethod
from hone.methods.prefix import Prefix
from hone.methods.prompt import Prompt
from hone.methods.qlora import QLora, _four_bits
from tests.tiny_bases import tiny

IDS = torch.tensor([[9, 10, 11, 12, 13], [14, 15, 16, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of a family, made once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return get


def load(folder: Path, auto: Any = AutoModelForSequenceClassification) -> Any:
    """The base with the same new head each time, told to pad with 0."""
    torch.manual_seed(7)
    more = {"num_labels": 3} if auto in (AutoModelForSequenceClassification, AutoModelForTokenClassification) else {}
    model = auto.from_pretrained(folder, **more).eval()
    model.config.pad_token_id = 0
    return model


def with_end(model: Any) -> torch.Tensor:
    """IDS with the end token that an encoder-decoder's head looks for."""
    ids = IDS.clone()
    if model.config.is_encoder_decoder:
        ids[0, 4] = ids[1, 2] = model.config.eos_token_id
    return ids


def logits(model: Any, rows: slice = slice(None), width: int = 5) -> torch.Tensor:
    ids = with_end(model)[rows, :width]
    with torch.no_grad():
        said: torch.Tensor = model.eval()(input_ids=ids, attention_mask=MASK[rows, :width]).logits
    return said


def train_a_little(model: Any) -> Any:
    """Three steps, so that whatever moves has moved."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        ids = with_end(model)
        loss = model.train()(input_ids=ids, attention_mask=MASK).logits.float().logsumexp(-1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("method", [QLora(rank=4), QLora(rank=4, dora=True, double=False), Ia3()], ids=repr)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "qwen"])
def test_merged_computes_what_was_trained(
    family: str, method: Any, base: Callable[[str], Path], tmp_path: Path
) -> None:
    names = {name for name, _ in load(base(family)).named_parameters()}
    trained = train_a_little(method.prepare(load(base(family))))
    said = logits(trained)
    trained.save_pretrained(tmp_path, save_embedding_layers=False)
    assert torch.allclose(logits(method.load_on_base(load(base(family)), tmp_path)), said, atol=1e-6)
    merged = method.merge(trained)
    assert torch.allclose(logits(merged), said, atol=1e-4)
    assert (said - logits(load(base(family)))).abs().max() > 1e-3
    assert type(merged) is type(load(base(family)))
    assert {name for name, _ in merged.named_parameters()} == names
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}


def test_qlora_holds_inner_layers_in_four_bits_and_the_rest_as_it_was(base: Callable[[str], Path]) -> None:
    from bitsandbytes.nn import Linear4bit

    trained = QLora(rank=4).prepare(load(base("bert")))
    small = {name.removeprefix("base_model.model.") for name, m in trained.named_modules() if isinstance(m, Linear4bit)}
    assert len(small) == 12  # six in each of two layers
    assert not any("classifier" in name or "pooler" in name for name in small)
    layer = trained.get_submodule("base_model.model.bert.encoder.layer.0.intermediate.dense")
    assert (layer.weight.dtype, layer.weight.numel()) == (torch.uint8, 16 * 32 // 2)
    assert layer.weight.quant_state.quant_type == "nf4"
    moving = {name for name, p in trained.named_parameters() if p.requires_grad}
    assert moving
    assert all("lora_" in name or "modules_to_save" in name for name in moving)


def test_qlora_rounds_as_the_reference_does(base: Callable[[str], Path]) -> None:
    """transformers' own loading in four bits is the reference."""
    from transformers import BitsAndBytesConfig

    wanted = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=["classifier", "bert.pooler.dense"],
    )
    reference = AutoModelForSequenceClassification.from_pretrained(
        base("bert"), num_labels=3, quantization_config=wanted, dtype=torch.float32
    )
    expected = four_bit_weights(reference)
    weights = four_bit_weights(QLora(rank=4).prepare(load(base("bert"))).get_base_model())
    assert len(weights) == 12
    assert weights.keys() == expected.keys()
    for name, (bits, numbers) in weights.items():
        assert torch.equal(bits, expected[name][0])
        assert torch.allclose(numbers, expected[name][1], atol=1e-6)


def four_bit_weights(model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The bits of each four-bit layer and the numbers that they stand for."""
    from bitsandbytes.nn import Linear4bit

    layers = {name.removesuffix(".base_layer"): m for name, m in model.named_modules() if isinstance(m, Linear4bit)}
    return {name: (layer.weight.data, numbers_of(layer)) for name, layer in layers.items()}


def numbers_of(layer: Any) -> torch.Tensor:
    """The numbers that a layer's four bits stand for, by definition: NF4's 16 values times the scale of the block."""
    from bitsandbytes.functional import dequantize_blockwise, get_4bit_type

    state, packed = layer.weight.quant_state, layer.weight.data.flatten()
    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[: state.shape.numel()]
    values = get_4bit_type("nf4", device="cpu")[codes.long()]
    numbers: torch.Tensor = (values * scales.repeat_interleave(64)[: len(values)]).view(state.shape)
    return numbers


@pytest.mark.parametrize("inputs", [16, 48, 64, 80, 100, 33])
@pytest.mark.parametrize("outputs", [7, 32])
@pytest.mark.parametrize("double", [True, False])
def test_qlora_computes_with_what_its_bits_stand_for(inputs: int, outputs: int, double: bool) -> None:
    """Whatever the shape, with gradients after a pass without them too: bitsandbytes' CPU kernels need more."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(inputs, outputs)
    plain.weight.data *= torch.rand(outputs, 1)  # scales that differ
    layer = _four_bits(plain, double).eval()
    numbers, x = numbers_of(layer), torch.randn(2, 3, inputs)
    expected = torch.nn.functional.linear(x, numbers, plain.bias)
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, atol=1e-5)
    moving = x.clone().requires_grad_()
    product = layer(moving)
    assert torch.allclose(product, expected, atol=1e-5)
    weights = torch.randn_like(product)
    (product * weights).sum().backward()
    assert torch.allclose(moving.grad, weights @ numbers, atol=1e-5)
    assert torch.allclose(plain.bias.grad, weights.sum((0, 1)), atol=1e-5)
    assert torch.allclose(layer.dequantize(), numbers, atol=1e-6)


def test_qlora_products_are_of_the_type_of_the_moment(base: Callable[[str], Path]) -> None:
    """After a batch in bfloat16 float32 is float32 again."""
    trained = QLora(rank=4).prepare(load(base("bert")))
    before = logits(trained)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits(trained)
    assert not torch.equal(rough, before)
    assert torch.equal(logits(trained), before)


def test_qlora_unmerged_is_served_on_the_base_as_it_was(base: Callable[[str], Path], tmp_path: Path) -> None:
    method = QLora(rank=4, merged=False)
    assert (method.can_merge, method.merged) == (False, False)
    trained = train_a_little(method.prepare(load(base("bert"))))
    trained.save_pretrained(tmp_path)
    assert method.merge(trained) is None
    served = logits(adapters.load_for_serving(load(base("bert")), tmp_path))
    # Weights of 16 numbers wide, rounded to 16 values, are a rough sketch of the base.
    assert 1e-3 < (served - logits(trained)).abs().max() < 3


def test_qlora_without_bitsandbytes_says_what_to_install(
    base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes, which is not installed\n.*hone\[qlora\]"):
        QLora().prepare(load(base("bert")))


def test_qlora_where_it_cannot_be_done_says_so(base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", broken)
    with pytest.raises(ModelError, match="cannot multiply with four-bit weights on this cpu: no kernel image"):
        QLora().prepare(load(base("bert")))


@pytest.mark.parametrize("method", [Prompt(virtual_tokens=4), Prefix(virtual_tokens=4)], ids=repr)
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "mistral", "qwen"])
def test_virtual_tokens_move_scores_whatever_the_padding(
    family: str, method: Any, base: Callable[[str], Path], tmp_path: Path
) -> None:
    prepared = method.prepare(load(base(family)))
    moving = {name for name, p in prepared.named_parameters() if p.requires_grad}
    assert any("prompt_encoder" in name for name in moving)
    assert all("prompt_encoder" in name or "modules_to_save" in name for name in moving)
    said = logits(train_a_little(prepared))
    assert torch.allclose(logits(prepared, slice(1, 2), width=3), said[1:], atol=1e-5)
    prepared.save_pretrained(tmp_path)
    for loaded in (
        method.load_on_base(load(base(family)), tmp_path),
        adapters.load_for_serving(load(base(family)), tmp_path),
    ):
        assert torch.allclose(logits(loaded), said, atol=1e-6)
    assert method.merge(prepared) is None
    with torch.no_grad():
        prepared.prompt_encoder.default.embedding.weight.mul_(3)
    assert (logits(prepared) - said).abs().max() > 1e-3


def test_a_prompt_leaves_as_many_logits_as_there_are_tokens(base: Callable[[str], Path]) -> None:
    """They are those of the same vectors, put before the words by hand."""
    for family, auto in (("gpt2", AutoModelForCausalLM), ("bert", AutoModelForTokenClassification)):
        plain = load(base(family), auto)
        prompted = Prompt(virtual_tokens=4).prepare(load(base(family), auto))
        vectors = prompted.get_prompt(2)
        words = plain.get_input_embeddings()(IDS)
        mask = torch.cat([torch.ones(2, 4), MASK], 1)
        with torch.no_grad():
            by_hand = plain(inputs_embeds=torch.cat([vectors, words], 1), attention_mask=mask).logits[:, 4:]
        assert torch.allclose(logits(prompted), by_hand, atol=1e-5)


@pytest.mark.parametrize("method", [Prompt(virtual_tokens=4), Prefix(virtual_tokens=4), Lora(rank=4), Ia3()], ids=repr)
@pytest.mark.parametrize(
    ("family", "auto"), [("t5", AutoModelForSeq2SeqLM), ("bart", AutoModelForSeq2SeqLM), ("gpt2", AutoModelForCausalLM)]
)
def test_language_models_generate_after_it(
    family: str, auto: Any, method: Any, base: Callable[[str], Path], tmp_path: Path
) -> None:
    """The first generated token is the likeliest one of a forward pass."""
    prepared = method.prepare(load(base(family), auto)).eval()
    ids, asked = IDS[:1], {"attention_mask": MASK[:1]}
    with torch.no_grad():
        if prepared.config.is_encoder_decoder:
            start = torch.tensor([[prepared.config.decoder_start_token_id]])
            said = prepared(input_ids=ids, decoder_input_ids=start, **asked).logits[0, 0]
            made = prepared.generate(input_ids=ids, max_new_tokens=2, min_new_tokens=2, do_sample=False, **asked)[0, 1]
        else:
            said = prepared(input_ids=ids, **asked).logits[0, -1]
            made = prepared.generate(
                input_ids=ids, max_new_tokens=2, min_new_tokens=2, do_sample=False, pad_token_id=0, **asked
            )[0, 5]
    said[prepared.generation_config.eos_token_id or 0] = -torch.inf  # min_new_tokens forbids the end
    assert made == said.argmax()


def test_a_masked_language_model_takes_lora_and_merges(base: Callable[[str], Path]) -> None:
    trained = train_a_little(Lora(rank=4).prepare(load(base("bert"), AutoModelForMaskedLM)))
    said = logits(trained)
    assert torch.allclose(logits(Lora().merge(trained)), said, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "family", "told"),
    [
        (Prompt(), "t5", "no vectors can stand before the words"),
        (Prompt(), "bart", "no vectors can stand before the words"),
        (Prompt(), "xlnet", "no vectors can stand before the words"),
        (Prefix(), "bart", "takes no keys and values"),
        (Prefix(), "xlnet", "takes no keys and values"),
        (Ia3(target_modules=("qkv",)), "gpt2", "called qkv\n  There are c_attn, c_proj, c_fc"),
        (Ia3(target_modules=("key",), feedforward_modules=("dense",)), "bert", "dense is not in method.target_modules"),
    ],
)
def test_what_does_not_fit_is_refused(method: Any, family: str, told: str, base: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=told):
        method.prepare(load(base(family)))


def test_ia3_of_a_type_that_nobody_knows_lists_its_layers(base: Callable[[str], Path]) -> None:
    model = load(base("gpt2"))
    model.config.model_type = "unheard-of"
    with pytest.raises(
        ModelError, match=r"no default layers for the model type unheard-of\n.*there are c_attn, c_proj, c_fc"
    ):
        Ia3().prepare(model)


def test_weights_that_are_the_word_embeddings_too_are_refused(base: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="the weights of lm_head are tied to the word embedding"):
        Lora(target_modules=("lm_head",)).prepare(load(base("gpt2"), AutoModelForCausalLM))


@pytest.mark.parametrize(("family", "room"), [("bert", 64), ("roberta", 64), ("gpt2", 64)])
def test_virtual_tokens_that_leave_no_room_for_the_row_say_how_much_there_is(
    family: str, room: int, base: Callable[[str], Path]
) -> None:
    prepared = Prompt(virtual_tokens=room - 4).prepare(load(base(family)))
    with pytest.raises(ModelError, match=rf"more than its {room} positions\n.*max_length to 4 or less"):
        logits(prepared)
    fits = Prompt(virtual_tokens=room - 5).prepare(load(base(family)))
    assert logits(fits).isfinite().all()


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_that_adds_weights_declares_it(kind: str) -> None:
    assert METHODS[kind].adapter == isinstance(METHODS[kind](), AdapterMethod)
