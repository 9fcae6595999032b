"""Base models that write text, of a few thousand random weights: decoders and encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TALK = "say tell me the word twice please now and then you are kind red green blue one two three user assistant".split()


def tokenizer_of(words: Sequence[str], *, closing: bool = False) -> Any:
    """Words by spaces; `<s>` and `</s>` are special, and stand around a text where `closing`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: at for at, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", "Ċ", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    split = [
        pre_tokenizers.Split("\n", "isolated"),
        pre_tokenizers.WhitespaceSplit(),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "<s>", "</s>", "<unk>")])
    if closing:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_talker(folder: Path, *, words: Sequence[str] = TALK, template: str = "", positions: int = 96) -> Path:
    """A Llama of two layers, perhaps with a chat template of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(words)
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_t5(folder: Path, *, words: Sequence[str] = TALK) -> Path:
    """A T5 of two layers a side; its texts end with </s>."""
    import torch
    from tokenizers import processors
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = tokenizer_of(words)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def tiny_bart(folder: Path, *, words: Sequence[str] = TALK, positions: int = 64) -> Path:
    """A BART of two layers a side; its texts stand between <s> and </s>."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = tokenizer_of(words, closing=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=positions,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder
