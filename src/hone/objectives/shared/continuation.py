"""Greedy continuations of texts by a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hone.models.positions import get_max_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.objectives.base import Batch


def continue_prompts(model: Any, batch: Batch, max_new_tokens: int) -> dict[str, Any]:
    """The greedy continuation of each prompt: `prompt` and `continued`, lists of ids, empty where there is no prompt.

    A prompt is cut at its beginning so that both fit the model's positions.
    """
    from transformers import GenerationConfig

    model_ends = model.generation_config.eos_token_id
    end = int(batch["end"][0])
    end_ids = {end, *(model_ends if isinstance(model_ends, list) else [model_ends] if model_ends is not None else [])}
    positions = get_max_tokens(model.config.get_text_config())
    max_new_tokens = min(max_new_tokens, positions - 1)
    rows = batch["prompt_mask"].any(1).nonzero().flatten()
    ids, mask = (batch[name][rows, -(positions - max_new_tokens) :] for name in ("prompt_ids", "prompt_mask"))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=sorted(end_ids), pad_token_id=end
    )
    outputs: dict[str, list[list[int]]] = {name: [[] for _ in batch["end"]] for name in ("prompt", "continued")}
    if len(rows):
        generated = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        for row, prompt, prompt_mask, token_ids in zip(rows.tolist(), ids, mask, generated, strict=True):
            outputs["prompt"][row] = prompt[prompt_mask.bool()].tolist()
            outputs["continued"][row] = _cut_before_end(token_ids[ids.shape[1] :].tolist(), end_ids)
    return outputs


def _cut_before_end(ids: list[int], end_ids: set[int]) -> list[int]:
    """The ids before the first of `end_ids`."""
    return ids[: next((index for index, token in enumerate(ids) if token in end_ids), len(ids))]


def text_after(tokenizer: PreTrainedTokenizerBase, prompt: list[int], continuation: list[int]) -> str:
    """The text that `continuation` adds to `prompt`: decoded alone it would lose the space that it begins with."""
    prompt_text, full_text = (
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in (prompt, [*prompt, *continuation])
    )
    return str(full_text[len(prompt_text) :])
