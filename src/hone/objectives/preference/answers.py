"""A language model's own answers to prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hone.models.positions import get_max_tokens
from hone.objectives.preference.tokens import IGNORED, token_log_probs
from hone.objectives.shared.padding import attention_mask, pad_rows

if TYPE_CHECKING:
    from hone.objectives.base import Batch


def generate_answers(model: Any, batch: Batch, max_new_tokens: int) -> dict[str, Any]:
    """The greedy answers, at most `max_new_tokens` tokens long, to a batch of prompts that are padded on the left.

    `tokens`, a list of ids for each prompt, and their summed `log_probability` (float32), the end token included.
    """
    from transformers import GenerationConfig

    prompts, mask = batch["input_ids"], batch["attention_mask"]
    end_ids, pad_id = _get_end_ids(model), model.config.pad_token_id
    positions = get_max_tokens(model.config.get_text_config())
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(max_new_tokens, positions - prompts.shape[1])),
        eos_token_id=end_ids or None,
        pad_token_id=pad_id,
    )
    generated = model.generate(input_ids=prompts, attention_mask=mask, generation_config=settings)
    answers = [_cut_after_end(row, end_ids) for row in generated[:, prompts.shape[1] :].tolist()]
    prompt_ids = [row[is_prompt].tolist() for row, is_prompt in zip(prompts, mask.bool(), strict=True)]
    pairs = list(zip(prompt_ids, answers, strict=True))
    rows = [prompt + answer for prompt, answer in pairs]
    label_rows = [[IGNORED] * len(prompt) + answer for prompt, answer in pairs]
    # Scored in a second pass, padded on the right as in training.
    ids, answer_mask, labels = (
        tensor.to(prompts.device)
        for tensor in (pad_rows(rows, pad_id), attention_mask(rows), pad_rows(label_rows, IGNORED))
    )
    log_probs = token_log_probs(model(input_ids=ids, attention_mask=answer_mask).logits, labels)
    return {"tokens": answers, "log_probability": log_probs.sum(1).cpu().numpy()}


def _get_end_ids(model: Any) -> list[int]:
    """The ids that end an answer: the generation config's, else the model config's."""
    end_ids = getattr(model.generation_config, "eos_token_id", None)
    end_ids = model.config.eos_token_id if end_ids is None else end_ids
    return [] if end_ids is None else list(end_ids) if isinstance(end_ids, (list, tuple)) else [end_ids]


def _cut_after_end(row: list[int], end_ids: list[int]) -> list[int]:
    """The ids up to and including the first of `end_ids`."""
    last = next((index for index, token in enumerate(row) if token in end_ids), len(row) - 1)
    return row[: last + 1]
