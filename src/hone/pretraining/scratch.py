"""A base model from scratch: a tokenizer trained on the curated text, and random weights for an architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError, DataError
from hone.objectives.base import Objective
from hone.process_environment import ALL_CORES, environment
from hone.progress import OnProgress, Progress, ignore
from hone.splits import TRAIN
from hone.store import layout
from hone.store.artifact import Product

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FOLDER = "model"
SENTINELS = 100  # <extra_id_0> to <extra_id_99>, as in T5's vocabulary
BYTES = 256  # byte-level BPE starts from all of them


def make_base(
    splits: Path,
    out: Path,
    *,
    objective: Objective,
    architecture: str,
    hidden_size: int,
    layers: int,
    heads: int,
    positions: int,
    vocabulary: int,
    seed: int,
    on_progress: OnProgress = ignore,
) -> Product:
    """Write a base model to out/model with save_pretrained: random weights, and a tokenizer trained on the train split.

    The same rows and sizes give the same bytes. The tokenizer has at most `vocabulary` tokens. Raises ConfigError if
    `hidden_size` is not a multiple of `heads`, DataError if the split has no text.
    """
    import pyarrow.parquet as pq
    import torch

    if hidden_size % heads:
        raise ConfigError(
            f"a hidden size of {hidden_size} is not a multiple of {heads} heads",
            where="model.scratch",
            fix=f"Choose a hidden_size that is a multiple of {heads}.",
        )
    file = pq.ParquetFile(splits / layout.rows_file(TRAIN))
    rows = file.metadata.num_rows
    with environment(ALL_CORES):
        tokenizer = _train_tokenizer(architecture, _texts(file, objective, on_progress), vocabulary, positions)
    if len(tokenizer) <= BYTES + len(tokenizer.all_special_tokens):
        raise DataError(
            "no text to train a tokenizer on",
            where=str(splits / layout.rows_file(TRAIN)),
            fix="Check which rows curation dropped (rejects.parquet).",
        )
    sizes = {"hidden": hidden_size, "layers": layers, "heads": heads, "positions": positions, "vocab": len(tokenizer)}
    torch.manual_seed(seed)
    model = _build_random_model(architecture, sizes, tokenizer)
    model.save_pretrained(out / FOLDER)
    tokenizer.save_pretrained(out / FOLDER)
    on_progress(Progress(rows, rows))
    parameters = sum(weights.numel() for weights in model.parameters())
    return Product(rows, (f"{FOLDER}/*",), {"parameters": parameters, "vocabulary": len(tokenizer)})


def _texts(file: Any, objective: Objective, on_progress: OnProgress) -> Iterator[list[str]]:
    import pyarrow as pa

    done, total = 0, file.metadata.num_rows
    for batch in file.iter_batches(10_000):
        yield objective.row_texts(pa.Table.from_batches([batch]))
        done += batch.num_rows
        on_progress(Progress(done, total, note="tokenizer"))


def _train_tokenizer(
    architecture: str, texts: Iterator[list[str]], vocabulary: int, positions: int
) -> PreTrainedTokenizerFast:
    """Byte-level byte pair encoding (Radford et al., 2019), with the architecture's special tokens.

    Decoding returns every text byte for byte. It is the only kind whose training in `tokenizers` is deterministic.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = _SPECIAL.get(architecture, _SPECIAL["decoder"])
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)] if architecture == "t5" else []
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(dict.fromkeys([*special.values(), *sentinels])),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer=trainer)
    if architecture in _FRAMES:
        _add_frame(raw, *_FRAMES[architecture])
    extra_options = {"extra_special_tokens": sentinels} if sentinels else {"model_max_length": positions}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special, **extra_options)


_SPECIAL = {
    "decoder": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|pad|>"},
    "bert": {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
    "roberta": {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "mask_token": "<mask>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    },
    "t5": {"pad_token": "<pad>", "eos_token": "</s>"},
}
# Templates of special tokens around a single text and around a pair of texts.
_FRAMES = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "t5": ("$A </s>", "$A </s> $B </s>"),
}


def _add_frame(raw: Tokenizer, single: str, pair: str) -> None:
    """Make the tokenizer add special tokens around a text and around a pair."""
    from tokenizers import processors

    marks = sorted({word for word in pair.split() if not word.startswith("$")})
    raw.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(mark.partition(":")[0], raw.token_to_id(mark.partition(":")[0])) for mark in marks],
    )


def _build_random_model(
    architecture: str, sizes: Mapping[str, int], tokenizer: PreTrainedTokenizerFast
) -> PreTrainedModel:
    """A model with its pre-training head, initialized as the architecture prescribes (needs a seeded torch)."""
    import transformers

    hidden, layers, heads = sizes["hidden"], sizes["layers"], sizes["heads"]
    common_options = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    common_options |= {"intermediate_size": 4 * hidden, "max_position_embeddings": sizes["positions"]}
    options_by_architecture: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": sizes["positions"]},
        # RoBERTa counts positions from the padding token's id on.
        "roberta": common_options | {"max_position_embeddings": sizes["positions"] + 1 + (tokenizer.pad_token_id or 0)},
        "t5": {
            "d_model": hidden,
            "d_kv": hidden // heads,
            "d_ff": 4 * hidden,
            "num_layers": layers,
            "num_heads": heads,
        },
    }
    group_options = {"num_key_value_heads": heads} if architecture in ("llama", "mistral", "qwen2") else {}
    ids = {
        name: getattr(tokenizer, name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id")
        if getattr(tokenizer, name) is not None
    }
    if architecture == "t5":
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
    config = transformers.AutoConfig.for_model(
        architecture,
        vocab_size=sizes["vocab"],
        **(options_by_architecture.get(architecture, common_options) | group_options | ids),
    )
    auto = {"bert": "AutoModelForMaskedLM", "roberta": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}
    model: PreTrainedModel = getattr(transformers, auto.get(architecture, "AutoModelForCausalLM")).from_config(config)
    return model
