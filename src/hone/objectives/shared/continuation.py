"""Texts that a decoder goes on with, greedily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.objectives.base import Batch


def continue_prompts(model: Any, batch: Batch, most: int) -> dict[str, Any]:
    """The greedy continuation of each prompt, which leaves room for it: `prompt` and `continued`, lists of ids."""
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = {int(batch["end"][0]), *(own if isinstance(own, list) else [own] if own is not None else [])}
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    most = min(most, positions - 1)
    asked = batch["prompt_mask"].any(1).nonzero().flatten()
    ids, mask = (batch[name][asked, -(positions - most) :] for name in ("prompt_ids", "prompt_mask"))
    settings = GenerationConfig(
        max_new_tokens=most, do_sample=False, eos_token_id=sorted(ends), pad_token_id=int(batch["end"][0])
    )
    found: dict[str, list[list[int]]] = {name: [[] for _ in batch["end"]] for name in ("prompt", "continued")}
    if len(asked):
        written = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        for row, prompt, shown, whole in zip(asked.tolist(), ids, mask, written, strict=True):
            found["prompt"][row] = prompt[shown.bool()].tolist()
            found["continued"][row] = _until(whole[ids.shape[1] :].tolist(), ends)
    return found


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """The ids before the first end."""
    return ids[: next((place for place, one in enumerate(ids) if one in ends), len(ids))]


def text_after(tokenizer: PreTrainedTokenizerBase, prompt: list[int], continuation: list[int]) -> str:
    """The text that `continuation` adds to `prompt`: decoded alone it would lose the space that it begins with."""
    before, whole = (
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in (prompt, [*prompt, *continuation])
    )
    return str(whole[len(before) :])
