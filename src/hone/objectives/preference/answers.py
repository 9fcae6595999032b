"""A language model's own answers to prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hone.objectives.preference.tokens import IGNORED, token_log_probs
from hone.objectives.shared.padding import attention_mask, pad_rows

if TYPE_CHECKING:
    from hone.objectives.base import Batch


def generate_answers(model: Any, batch: Batch, most: int) -> dict[str, Any]:
    """The greedy answers to a batch of prompts that are padded on the left, of at most `most` tokens.

    `tokens`, a list of ids for each prompt, and `log_probability` of all of them (float32), the end token's too.
    """
    from transformers import GenerationConfig

    prompts, mask = batch["input_ids"], batch["attention_mask"]
    ends, pad = _ends(model), model.config.pad_token_id
    positions = getattr(model.config, "max_position_embeddings", None) or 10**9
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(most, positions - prompts.shape[1])),
        eos_token_id=ends or None,
        pad_token_id=pad,
    )
    whole = model.generate(input_ids=prompts, attention_mask=mask, generation_config=settings)
    said = [_until(row, ends) for row in whole[:, prompts.shape[1] :].tolist()]
    asked = [row[there].tolist() for row, there in zip(prompts, mask.bool(), strict=True)]
    rows = [prompt + answer for prompt, answer in zip(asked, said, strict=True)]
    hidden = [[IGNORED] * len(prompt) + answer for prompt, answer in zip(asked, said, strict=True)]
    ids, there, labels = (
        tensor.to(prompts.device) for tensor in (pad_rows(rows, pad), attention_mask(rows), pad_rows(hidden, IGNORED))
    )
    log_probs = token_log_probs(model(input_ids=ids, attention_mask=there).logits, labels)
    return {"tokens": said, "log_probability": log_probs.sum(1).cpu().numpy()}


def _ends(model: Any) -> list[int]:
    """The ids after which the model says no more."""
    found = getattr(model.generation_config, "eos_token_id", None)
    found = model.config.eos_token_id if found is None else found
    return [] if found is None else list(found) if isinstance(found, (list, tuple)) else [found]


def _until(row: list[int], ends: list[int]) -> list[int]:
    """The ids up to the first of `ends`, with it."""
    first = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
    return row[: first + 1]
