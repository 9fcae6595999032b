"""Text that a model makes up, the same each time: greedily, or by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel


def set_generation_config(
    model: PreTrainedModel, *, ends: Sequence[int] = (), beams: int = 1, most: int
) -> PreTrainedModel:
    """The model with a generation config of its own, saved with it, that makes up text as `continued` does.

    A base's own config may sample, or hold lengths and penalties of what it was tuned for; its ids stay.
    """
    from transformers import GenerationConfig

    given = model.generation_config
    stops = dict.fromkeys([*ends, *_ids(given.eos_token_id)])
    kept = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    model.generation_config = GenerationConfig(
        eos_token_id=list(stops) or None,
        pad_token_id=model.config.pad_token_id,
        num_beams=beams,
        do_sample=False,
        max_new_tokens=most,
        **{name: getattr(given, name, None) for name in kept},
    )
    return model


def generate_ids(
    model: Any, inputs: dict[str, Tensor], *, most: int, ends: Sequence[int] = (), beams: int = 1
) -> list[list[int]]:
    """The new token ids for each row, at most `most`, up to an end token, which is left out."""
    config = _config(model, ends, beams, most)
    made = model.generate(**inputs, generation_config=config)
    start = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    stops = set(config.eos_token_id or ())
    return [_until(row[start:], stops) for row in made.tolist()]


def _config(model: Any, ends: Sequence[int], beams: int, most: int) -> GenerationConfig:
    """All that decides the text is said: what is None here, transformers takes from the model's own config."""
    from transformers import GenerationConfig

    stops = dict.fromkeys([*ends, *_ids(model.generation_config.eos_token_id)])
    return GenerationConfig(
        eos_token_id=list(stops) or None,
        pad_token_id=model.config.pad_token_id,
        max_new_tokens=most,
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


def _until(ids: list[int], stops: set[int]) -> list[int]:
    at = next((n for n, one in enumerate(ids) if one in stops), len(ids))
    return ids[:at]


def _ids(given: int | Sequence[int] | None) -> list[int]:
    return [] if given is None else [given] if isinstance(given, int) else list(given)
