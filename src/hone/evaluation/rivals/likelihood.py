"""How likely a model finds each of several continuations of one prompt, in bounded memory.

The prompt is read once. Continuations are padded on the right, where causal attention does not reach the padding: a
score does not depend on what else is scored.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.objectives.shared.padding import pad_rows

if TYPE_CHECKING:
    from torch import Tensor

# Bytes of keys, values and logits of the continuations that are scored at once. 77 labels after 500 tokens, 32 kB of
# keys and values each and a vocabulary of 50,000: 0.3 GB in these blocks, 1.4 GB and no faster all at once.
BLOCK_BYTES = 256 * 2**20
_FLOAT = 4  # bytes of a float32


def score_continuations(
    model: Any, prefix: Sequence[int], continuations: Sequence[Sequence[int]], ends: Sequence[int] = ()
) -> np.ndarray:
    """Log-likelihood of each continuation of the token ids `prefix` by a decoder: nats, float64 [continuations].

    The sum over the continuation's tokens, plus, with `ends`, that of ending after it: of the next token being any of
    `ends`, the ids at which generation stops. `prefix` has at least one token.
    """
    import torch

    rows = [[prefix[-1], *tokens] if ends else [prefix[-1], *tokens[:-1]] for tokens in continuations]
    scores = np.empty(len(rows))
    with torch.inference_mode():
        cache = _read_prefix(model, prefix[:-1])
        for block in _split_blocks(rows, _count_row_bytes(model, prefix, rows, cache)):
            logits = _compute_logits(model, prefix[:-1], [rows[row] for row in block], cache)
            targets = [continuations[row] for row in block]
            scores[block] = _sum_log_probabilities(logits, targets, ends).cpu().numpy()
    return scores


def score_targets(model: Any, prompt: Sequence[int], targets: Sequence[Sequence[int]]) -> np.ndarray:
    """Log-likelihood of each of the decoder's `targets` by an encoder-decoder that reads `prompt`: nats, float64."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    device, width = model.device, model.config.vocab_size
    scores = np.empty(len(targets))
    with torch.inference_mode():
        ids = torch.tensor([list(prompt)], device=device)
        hidden = model.get_encoder()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        # Cross attention has keys and values of the prompt for every target.
        longest = max(map(len, targets))
        row_bytes = 2 * _FLOAT * (hidden.numel() + longest * width)
        for block in _split_blocks(targets, row_bytes):
            rows = [targets[row] for row in block]
            logits = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden.expand(len(rows), -1, -1)),
                attention_mask=ids.new_ones(len(rows), ids.shape[1]),
                labels=pad_rows(rows, -100).to(device),  # the model shifts them and puts its start token first
                use_cache=False,
            ).logits
            scores[block] = _sum_log_probabilities(logits, rows, ()).cpu().numpy()
    return scores


def _split_blocks(rows: Sequence[Sequence[int]], row_bytes: int) -> Iterator[np.ndarray]:
    """Indices of rows of similar length, in blocks of at most BLOCK_BYTES, or of one row."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    size = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(rows), size):
        yield order[start : start + size]


def _count_row_bytes(model: Any, prefix: Sequence[int], rows: Sequence[Sequence[int]], cache: Any) -> int:
    """Bytes that the longest row takes in a block."""
    config, longest = model.config.get_text_config(), max(map(len, rows))
    values = 2 * longest * config.vocab_size  # logits, the second time for their exponents
    if cache is None:
        return int(_FLOAT * (values + 2 * (len(prefix) + longest) * config.hidden_size))
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    return int(_FLOAT * values + cached * (len(prefix) + longest) // max(1, len(prefix) - 1))


def _read_prefix(model: Any, prefix: Sequence[int]) -> Any:
    """The keys and values of the prefix; None if it is empty, or if the model's state is of another kind.

    Recurrent and hybrid models keep states that cannot be repeated for several continuations.
    """
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if not prefix:
        return None
    ids = torch.tensor([list(prefix)], device=model.device)
    outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **_keep_logits(model, 1))
    cache = outputs.get("past_key_values")
    is_repeatable = isinstance(cache, DynamicCache) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers
    )
    return cache if is_repeatable else None


def _compute_logits(model: Any, prefix: Sequence[int], rows: Sequence[Sequence[int]], cache: Any) -> Tensor:
    """The logits after each token of the rows, which follow the prefix: [rows, longest row, vocabulary]."""
    longest = max(map(len, rows))
    ids = pad_rows([[*prefix, *row] for row in rows] if cache is None else rows, 0).to(model.device)
    # All ones: without a mask GPT-2 warns of padding, which is on the right here.
    options = {"attention_mask": ids.new_ones(len(rows), len(prefix) + longest)}
    if cache is None:
        outputs = model(input_ids=ids, use_cache=False, **options, **_keep_logits(model, longest))
    else:
        repeated = deepcopy(cache)  # the model appends to it
        repeated.batch_repeat_interleave(len(rows))
        outputs = model(input_ids=ids, past_key_values=repeated, use_cache=True, **options)
    logits: Tensor = outputs.logits[:, -longest:]
    return logits


def _keep_logits(model: Any, count: int) -> dict[str, int]:
    """The option of most models to compute the logits of the last `count` positions alone."""
    name = "logits_to_keep"
    return {name: count} if name in inspect.signature(model.forward).parameters else {}


def _sum_log_probabilities(logits: Tensor, targets: Sequence[Sequence[int]], ends: Sequence[int]) -> Tensor:
    """Summed log-probabilities of each row's targets, and of any of `ends` after them: float64 [rows]."""
    import torch

    logits = logits.float()
    totals = logits.logsumexp(-1)  # [rows, positions]
    ids = pad_rows(targets, 0).to(logits.device)
    lengths = torch.tensor([len(row) for row in targets], device=logits.device)
    width = ids.shape[1]
    chosen = logits[:, :width].gather(2, ids[..., None])[..., 0] - totals[:, :width]
    is_target = torch.arange(width, device=logits.device) < lengths[:, None]
    scores = chosen.double().masked_fill(~is_target, 0).sum(1)
    if ends:
        rows = torch.arange(len(targets), device=logits.device)
        end_logits = logits[rows, lengths][:, list(ends)].logsumexp(-1)
        scores += (end_logits - totals[rows, lengths]).double()
    return scores
