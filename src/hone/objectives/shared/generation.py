"""Deterministic text generation: greedy, or by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel


def set_generation_config(
    model: PreTrainedModel, *, ends: Sequence[int] = (), beams: int = 1, max_new_tokens: int
) -> PreTrainedModel:
    """The model with a new generation config, saved with it, that generates text like `generate_ids`.

    A base model's own config may sample, or hold lengths and penalties for its former task; its token ids are kept.
    """
    from transformers import GenerationConfig

    base_config = model.generation_config
    end_ids = dict.fromkeys([*ends, *_to_id_list(base_config.eos_token_id)])  # distinct, in order
    kept_names = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    model.generation_config = GenerationConfig(
        eos_token_id=list(end_ids) or None,
        pad_token_id=model.config.pad_token_id,
        num_beams=beams,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        **{name: getattr(base_config, name, None) for name in kept_names},
    )
    return model


def generate_ids(
    model: Any, inputs: dict[str, Tensor], *, max_new_tokens: int, ends: Sequence[int] = (), beams: int = 1
) -> list[list[int]]:
    """The new token ids for each row, at most `max_new_tokens`, up to an end token, which is left out."""
    config = _build_generation_config(model, ends, beams, max_new_tokens)
    generated = model.generate(**inputs, generation_config=config)
    start = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]  # 1: the decoder's start token
    end_ids = set(config.eos_token_id or ())
    return [_cut_before_end(row[start:], end_ids) for row in generated.tolist()]


def _build_generation_config(model: Any, ends: Sequence[int], beams: int, max_new_tokens: int) -> GenerationConfig:
    """Set everything that affects the text: transformers takes what is None from the model's own config."""
    from transformers import GenerationConfig

    end_ids = dict.fromkeys([*ends, *_to_id_list(model.generation_config.eos_token_id)])
    return GenerationConfig(
        eos_token_id=list(end_ids) or None,
        pad_token_id=model.config.pad_token_id,
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        min_new_tokens=0,
        length_penalty=1.0,
        early_stopping=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        num_return_sequences=1,
        return_dict_in_generate=False,
        use_cache=True,
    )


def _cut_before_end(ids: list[int], end_ids: set[int]) -> list[int]:
    length = next((index for index, token in enumerate(ids) if token in end_ids), len(ids))
    return ids[:length]


def _to_id_list(ids: int | Sequence[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
