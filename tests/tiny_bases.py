"""Base models of a few thousand random weights, made in milliseconds, with real tokenizers.

`FAMILIES` holds the real architectures; `tiny(family, folder)` writes one as save_pretrained of a hub model would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

GAPS = [
    f"<extra_id_{n}>" for n in range(9, -1, -1)
]  # T5's sentinels, numbered downwards from the end of the vocabulary
TALK = "say tell me the word twice please now and then you are kind red green blue one two three user assistant".split()
WORDS = "the a is was where my card money refund lost stolen late broken please help red green blue word".split()


@dataclass(frozen=True)
class Family:
    """A family's tokenizer and architecture.

    special      its special tokens, in the order of their ids from 0, by role
    around       how it writes a text, as tokenizers' TemplateProcessing says it
    more         further special tokens, with the last ids
    model, config  names of transformers' classes
    sizes        what the configuration's fields are called there
    side         where its own tokenizer pads
    """

    model: str
    config: str
    special: Mapping[str, str]
    around: str = "$A"
    sizes: Mapping[str, Any] = field(default_factory=dict)
    side: str = "right"
    more: Sequence[str] = ()


def _common(hidden: int) -> dict[str, Any]:
    return {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 2 * hidden}


def _grouped(hidden: int) -> dict[str, Any]:
    """Two query heads share a key head, as in the families' newer members."""
    return _common(hidden) | {"num_key_value_heads": 1}


def _pair(hidden: int) -> dict[str, Any]:
    sizes: dict[str, Any] = {"d_model": hidden}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 2 * hidden}
    return sizes


# Configuration fields by family, of a model `hidden` wide.
_SIZES: dict[str, Callable[[int], dict[str, Any]]] = {
    "bert": _common,
    "roberta": _common,
    "xlnet": lambda hidden: {"d_model": hidden, "n_layer": 2, "n_head": 2, "d_inner": 2 * hidden},
    "t5": lambda hidden: {"d_model": hidden, "d_kv": hidden // 2, "d_ff": 2 * hidden, "num_layers": 2, "num_heads": 2},
    "bart": _pair,
    "gpt2": lambda hidden: {"n_embd": hidden, "n_layer": 2, "n_head": 2},
    "llama": _common,
    "mistral": _grouped,
    "phi": _common,
    "gemma": lambda hidden: _grouped(hidden) | {"head_dim": hidden // 2},
    "olmo": _common,
    "qwen": _grouped,
}
_POSITIONS = {"bert", "roberta", "bart", "gpt2", "llama", "mistral", "phi", "gemma", "olmo", "qwen"}
_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_ROBERTA = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}

FAMILIES: dict[str, Family] = {
    "bert": Family("BertForMaskedLM", "BertConfig", _BERT, "[CLS] $A [SEP]"),
    "roberta": Family("RobertaForMaskedLM", "RobertaConfig", _ROBERTA, "<s> $A </s>", {"type_vocab_size": 1}),
    "xlnet": Family(
        "XLNetLMHeadModel",
        "XLNetConfig",
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        | {"cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>", "mask_token": "<mask>"},
        "$A <sep> <cls>",
        side="left",
    ),
    "t5": Family(
        "T5ForConditionalGeneration",
        "T5Config",
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "$A </s>",
        {"decoder_start_token_id": 0, "tie_word_embeddings": True},
        more=GAPS,
    ),
    "bart": Family(
        "BartForConditionalGeneration",
        "BartConfig",
        _ROBERTA | {"eos_token": "</s>", "bos_token": "<s>"},
        "<s> $A </s>",
        {"decoder_start_token_id": 2, "forced_eos_token_id": 2},
    ),
    # GPT-2 knows one special token for everything, and none for padding.
    "gpt2": Family("GPT2LMHeadModel", "GPT2Config", {"eos_token": "<end>", "bos_token": "<end>"}),
    "llama": Family(
        "LlamaForCausalLM",
        "LlamaConfig",
        {"unk_token": "<unk>", "bos_token": "<begin>", "eos_token": "<end>"},
        "<begin> $A",
    ),
    "mistral": Family(
        "MistralForCausalLM",
        "MistralConfig",
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        "<s> $A",
        {"sliding_window": 8},
    ),
    "phi": Family("PhiForCausalLM", "PhiConfig", {"eos_token": "<end>"}),
    "gemma": Family(
        "GemmaForCausalLM",
        "GemmaConfig",
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        "<bos> $A",
        side="left",
    ),
    "olmo": Family(
        "OlmoForCausalLM", "OlmoConfig", {"unk_token": "<unk>", "eos_token": "<end>", "pad_token": "<padding>"}
    ),
    "qwen": Family(
        "Qwen3ForCausalLM",
        "Qwen3Config",
        {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        sizes={"head_dim": 8, "tie_word_embeddings": True},
        side="left",
    ),
}


def tiny(
    family: str,
    folder: Path,
    *,
    words: Sequence[str] = WORDS,
    hidden: int = 16,
    positions: int = 64,
    architecture: str = "",
    without: Sequence[str] = (),
    template: str = "",
    seed: int = 0,
    **fields: Any,
) -> Path:
    """A model of `family` with two layers, in `folder`; `fields` change its configuration.

    It is saved with the head that the family's models on the hub have, or as the class `architecture`. Its tokenizer
    has the family's special tokens, except those `without`, and perhaps a chat template.
    """
    import torch
    import transformers

    made = FAMILIES[family]
    special = {role: token for role, token in made.special.items() if role not in without}
    around = " ".join(word for word in made.around.split() if word == "$A" or word in special.values())
    made = replace(made, special=special, around=around)
    vocabulary = _vocabulary(made, words)
    tokenizer = _tokenizer(made, vocabulary)
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(folder)
    ids = {f"{role}_id": vocabulary[token] for role, token in made.special.items() if f"{role}_id" in _CONFIGURED}
    settings = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None} | ids
    settings |= _SIZES[family](hidden) | dict(made.sizes)
    settings |= _lively(family)
    if family in _POSITIONS:
        # RoBERTa's first position is the one after the padding's id.
        settings["max_position_embeddings"] = positions + 2 * (family == "roberta")
    torch.manual_seed(seed)
    config = getattr(transformers, made.config)(vocab_size=len(vocabulary), **(settings | fields))
    getattr(transformers, architecture or made.model)(config).save_pretrained(folder)
    return folder


def tiny_bert(folder: Path, **options: Any) -> Path:
    """An encoder without a head: [CLS] and [SEP] around lower-cased words, two layers."""
    return tiny("bert", folder, architecture="BertModel", without=("mask_token",), **options)


def tiny_llama(folder: Path) -> Path:
    """A decoder whose tokenizer has an end token, and none for padding."""
    return tiny("llama", folder, without=("bos_token",), initializer_range=0.02)


def tiny_masked(folder: Path, **options: Any) -> Path:
    """An encoder with a head for masked words and a mask token."""
    return tiny("bert", folder, **options)


def tiny_talker(folder: Path, *, words: Sequence[str] = TALK, template: str = "", positions: int = 96) -> Path:
    """A decoder with tokens for the begin and the end of a text, perhaps with a chat template of its own."""
    sizes = {"hidden": 32, "positions": positions, "initializer_range": 0.02}
    return tiny("llama", folder, words=words, template=template, **sizes)


def tiny_t5(folder: Path, *, words: Sequence[str] = WORDS) -> Path:
    """An encoder-decoder with ten sentinels, and no dropout."""
    return tiny("t5", folder, words=words, hidden=32, initializer_factor=1.0, dropout_rate=0.0)


def tiny_bart(folder: Path, *, words: Sequence[str] = WORDS) -> Path:
    """An encoder-decoder with a table of 64 positions."""
    return tiny("bart", folder, words=words, hidden=32, init_std=0.02)


_CONFIGURED = {"pad_token_id", "bos_token_id", "eos_token_id"}


def _lively(family: str) -> dict[str, Any]:
    """Weights wide enough that texts get different scores: with the usual 0.02 all get the same."""
    if family == "t5":
        return {"initializer_factor": 5.0}
    return {"init_std" if family == "bart" else "initializer_range": 0.5}


def _vocabulary(family: Family, words: Sequence[str]) -> dict[str, int]:
    tokens = dict.fromkeys([*family.special.values(), _unknown(family), *words, *family.more])
    return {token: i for i, token in enumerate(tokens)}


def _unknown(family: Family) -> str:
    """The token of words that are not known. Byte-level tokenizers have none: here it is a word like any other."""
    return family.special.get("unk_token", "<unk>")


def _tokenizer(family: Family, vocabulary: Mapping[str, int]) -> Any:
    """Lower-cased words, each a token, and the family's special tokens around them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=_unknown(family)))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if family.around != "$A":
        special = [(token, vocabulary[token]) for token in dict.fromkeys(family.special.values())]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=family.around, pair=_pairs(family), special_tokens=special
        )
    special: dict[str, Any] = dict(family.special) | (
        {"additional_special_tokens": [*family.more]} if family.more else {}
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=family.side, **special)


def _pairs(family: Family) -> str:
    """How it writes two texts: the second one framed by what comes after the first."""
    after = family.around.partition("$A")[2].split()
    return " ".join([family.around, "$B:1", *(f"{token}:1" for token in after)])
