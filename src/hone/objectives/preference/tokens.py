"""Prompts and completions as token ids, and encoded rows as padded sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hone.errors import DataError
from hone.objectives.preference.rows import Messages, Text, render_plain
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.special_tokens import get_special_tokens
from hone.objectives.shared.tokenizer import encode_rendered, encode_with_offsets

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of a token outside the completion; PyTorch's cross entropy skips it
CHOSEN, REJECTED, OTHER = 0, 1, 2


@dataclass(frozen=True)
class Tokens:
    """Token ids of a row; a missing completion is empty."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def flat(self) -> list[int]:
        """The prompt with each completion, concatenated."""
        return [token for part in (self.chosen, self.rejected) if part for token in (*self.prompt, *part)]

    @property
    def longest(self) -> int:
        """The number of tokens of the longer sequence."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class _Sequence(NamedTuple):
    """A prompt with one completion: one row of a padded batch.

    `row` is the index of its row in the batch, `reference` the reference model's log-probability of the completion,
    None if it is not known.
    """

    token_ids: list[int]
    prompt_length: int
    side: int
    row: int
    reference: float | None


def encode_pairs(
    ids: Sequence[str],
    rows: Sequence[tuple[Text, Text, Text]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    control: Sequence[str] = (),
) -> pa.Table:
    """`id`, `input_ids`, `lost`, and the token counts `prompt`, `chosen` and `rejected` (int32, 0 if missing).

    A row's `input_ids` are prompt and chosen, then prompt and rejected. `other` (list<int32>) is a completion of the
    next row, alternately chosen and rejected, from which KTO estimates the KL divergence. `longest` is the length of
    the longer sequence before truncation. Raises DataError for a completion without a token of its own.
    """
    import pyarrow as pa

    full_rows = _tokenize_rows(rows, tokenizer, ids, control)
    cut_rows = [_truncate_row(row, max_length) for row in full_rows]
    completions = [
        (row.rejected or row.chosen) if index % 2 else (row.chosen or row.rejected)
        for index, row in enumerate(cut_rows)
    ]
    next_completions = [*completions[1:], *completions[:1]]
    others = [
        completion[: max_length - len(row.prompt)] for row, completion in zip(cut_rows, next_completions, strict=True)
    ]
    lost = [len(full.flat) - len(cut.flat) for full, cut in zip(full_rows, cut_rows, strict=True)]
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "input_ids": pa.array([row.flat for row in cut_rows], pa.list_(pa.int32())),
            "prompt": pa.array([len(row.prompt) for row in cut_rows], pa.int32()),
            "chosen": pa.array([len(row.chosen) for row in cut_rows], pa.int32()),
            "rejected": pa.array([len(row.rejected) for row in cut_rows], pa.int32()),
            "other": pa.array(others, pa.list_(pa.int32())),
            "longest": pa.array([row.longest for row in full_rows], pa.int32()),
            "lost": pa.array(lost, pa.int32()),
        }
    )


def encode_prompts(
    ids: Sequence[str],
    prompts: Sequence[Text],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    control: Sequence[str] = (),
) -> pa.Table:
    """`id`, `input_ids` (the last `max_tokens` tokens of each prompt) and `lost` (the number of tokens cut off)."""
    import pyarrow as pa

    token_ids = _tokenize_prompts(prompts, tokenizer, control)
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "input_ids": pa.array([row[-max_tokens:] for row in token_ids], pa.list_(pa.int32())),
            "lost": pa.array([max(0, len(row) - max_tokens) for row in token_ids], pa.int32()),
        }
    )


def collate_sequences(rows: Mapping[str, Sequence[Any]], pad_id: int, others: bool) -> dict[str, Tensor]:
    """The rows' sequences as a batch: for each row the chosen, then the rejected, if present.

    `input_ids`, `attention_mask`, `labels` [sequences, longest]; `side` [sequences] is CHOSEN or REJECTED, `row` the
    index of its row; `reference` [sequences], if known, the reference model's log-probability of a completion. With
    `others` the same for prompts with another row's completion, under names that begin with `other_`.
    """
    sequences_by_row = [_split_row(rows, row) for row in range(len(rows["input_ids"]))]
    batch = _pad_sequences([sequence for sequences in sequences_by_row for sequence in sequences], pad_id)
    if others:
        other_batch = _pad_sequences(_build_other_sequences(rows, sequences_by_row), pad_id)
        batch |= {f"other_{name}": tensor for name, tensor in other_batch.items()}
    return batch


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each labelled token, float32 [sequences, longest - 1]; 0 where there is no label.

    Only labelled positions are converted to float32 and normalized: with a vocabulary of 128,000 that is most of the
    memory.
    """
    import torch
    from torch.nn.functional import cross_entropy

    next_labels = labels[:, 1:]
    is_labelled = next_labels != IGNORED
    log_probs = -cross_entropy(logits[:, :-1][is_labelled].float(), next_labels[is_labelled], reduction="none")
    return torch.zeros(is_labelled.shape, device=logits.device).masked_scatter(is_labelled, log_probs)


def split_by_sequence(log_probs: Tensor, labels: Tensor) -> list[Any]:
    """The log-probabilities of each sequence's labelled tokens, in order: float32 arrays."""
    import numpy as np

    is_labelled = (labels[:, 1:] != IGNORED).cpu()
    lengths: list[int] = is_labelled.sum(1).tolist()
    flat = log_probs.detach().cpu()[is_labelled].numpy()
    return np.split(flat, np.cumsum(lengths)[:-1])


def _split_row(rows: Mapping[str, Sequence[Any]], row: int) -> list[_Sequence]:
    """The row's sequences: its prompt with each of its completions."""
    token_ids, prompt_length = list(rows["input_ids"][row]), int(rows["prompt"][row])
    log_probs = rows["reference"][row] if "reference" in rows else None
    sequences: list[_Sequence] = []
    # `input_ids` repeats the prompt before each completion; `reference` holds the completions' tokens alone.
    start = scored = 0
    for side, name in ((CHOSEN, "chosen"), (REJECTED, "rejected")):
        if length := int(rows[name][row]):
            reference = None if log_probs is None else float(sum(log_probs[scored : scored + length]))
            stop = start + prompt_length + length
            sequences.append(_Sequence(token_ids[start:stop], prompt_length, side, row, reference))
            start, scored = stop, scored + length
    return sequences


def _build_other_sequences(
    rows: Mapping[str, Sequence[Any]], sequences_by_row: Sequence[Sequence[_Sequence]]
) -> list[_Sequence]:
    """Each row's prompt with the completion of another row."""
    others: list[_Sequence] = []
    for row, sequences in enumerate(sequences_by_row):
        prompt = sequences[0].token_ids[: sequences[0].prompt_length]
        completion = [int(token) for token in rows["other"][row]]
        # The other completion's log-probabilities are the last ones of a row's `reference`.
        reference = float(sum(rows["reference"][row][-len(completion) :])) if "reference" in rows else None
        others.append(_Sequence(prompt + completion, len(prompt), OTHER, row, reference))
    return others


def _pad_sequences(sequences: Sequence[_Sequence], pad_id: int) -> dict[str, Tensor]:
    import torch

    token_ids = [sequence.token_ids for sequence in sequences]
    labels = [
        [IGNORED] * sequence.prompt_length + sequence.token_ids[sequence.prompt_length :] for sequence in sequences
    ]
    batch: dict[str, torch.Tensor] = {
        "input_ids": pad_rows(token_ids, pad_id),
        "attention_mask": attention_mask(token_ids),
        "labels": pad_rows(labels, IGNORED),
        "side": torch.tensor([sequence.side for sequence in sequences]),
        "row": torch.tensor([sequence.row for sequence in sequences]),
    }
    if sequences[0].reference is not None:
        batch["reference"] = torch.tensor([sequence.reference for sequence in sequences], dtype=torch.float32)
    return batch


def _truncate_row(row: Tokens, max_length: int) -> Tokens:
    """The row with at most `max_length` tokens in each sequence.

    The beginning of the prompt is cut off first, down to half of `max_length`; then the ends of the completions.
    """
    longest = max(len(row.chosen), len(row.rejected))
    prompt = row.prompt[-max(max_length - longest, max_length // 2) :]
    room = max_length - len(prompt)
    return Tokens(prompt, row.chosen[:room], row.rejected[:room])


def _tokenize_rows(
    rows: Sequence[tuple[Text, Text, Text]],
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[str],
    control: Sequence[str],
) -> list[Tokens]:
    """The rows' tokens.

    Prompt and completion are tokenized together, and a completion begins where the result differs from the prompt
    alone: a tokenizer may merge the end of the prompt with the beginning of the completion. The end token is added
    after plain text, and where the chat template puts it.
    """
    prompts = _tokenize_prompts([prompt for prompt, *_ in rows], tokenizer, control)
    sequences_by_side = [
        _tokenize_sequences([(row[0], row[side]) for row in rows if row[side] != []], tokenizer, control)
        for side in (1, 2)
    ]
    tokens = []
    for name, row, prompt in zip(ids, rows, prompts, strict=True):
        sequences = [
            next(side_sequences) if row[side] != [] else []
            for side, side_sequences in zip((1, 2), sequences_by_side, strict=True)
        ]
        # 1 or more: the first token is predicted from nothing, so it never belongs to a completion.
        start = max(1, min(_count_shared_ids(prompt, sequence) for sequence in sequences if sequence))
        chosen, rejected = (sequence[start:] for sequence in sequences)
        if any(sequence and len(sequence) <= start for sequence in sequences):
            raise DataError("a completion has no token of its own", where=f"row {name}", fix="Drop such rows.")
        tokens.append(Tokens((sequences[0] or sequences[1])[:start], chosen, rejected))
    return tokens


def _tokenize_prompts(
    prompts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, control: Sequence[str]
) -> list[list[int]]:
    """The token ids of the prompts as a model gets them, up to where its answer begins."""
    texts = [
        prompt if isinstance(prompt, str) else _render_messages(tokenizer, prompt, control, answered=False)
        for prompt in prompts
    ]
    end = tokenizer.eos_token_id
    token_ids = _encode_texts(texts, [_uses_template(tokenizer, prompt) for prompt in prompts], tokenizer, control)
    # A tokenizer that ends every text with the end token must not close the prompt before its answer.
    return [row[:-1] if len(row) > 1 and row[-1] == end else row for row in token_ids]


def _tokenize_sequences(
    rows: Sequence[tuple[Text, Text]], tokenizer: PreTrainedTokenizerBase, control: Sequence[str]
) -> Iterator[list[int]]:
    """Yield the token ids of each prompt with its completion, the end token included."""
    texts = [
        prompt + completion
        if isinstance(prompt, str) and isinstance(completion, str)
        else _render_messages(tokenizer, [*prompt, *completion], control, answered=True)
        for prompt, completion in rows
    ]
    templated = [_uses_template(tokenizer, prompt) for prompt, _ in rows]
    end = tokenizer.eos_token_id
    for row, by_template in zip(_encode_texts(texts, templated, tokenizer, control), templated, strict=True):
        yield row if by_template or end is None or row[-1:] == [end] else [*row, end]


def _uses_template(tokenizer: PreTrainedTokenizerBase, text: Text) -> bool:
    return not isinstance(text, str) and bool(tokenizer.chat_template)


def _render_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, control: Sequence[str], *, answered: bool
) -> str:
    """Messages as text by the tokenizer's chat template; without a template, in the form of the HH data."""
    if not tokenizer.chat_template:
        return render_plain(messages, answered=answered)
    special = get_special_tokens(tokenizer, control)
    turns = [turn | {"content": special.hide(turn["content"])} for turn in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered))


def _encode_texts(
    texts: Sequence[str], templated: Sequence[bool], tokenizer: PreTrainedTokenizerBase, control: Sequence[str]
) -> list[list[int]]:
    """The token ids of texts, not truncated; a chat template has already written its special tokens."""
    token_ids: list[list[int]] = [[]] * len(texts)
    plain = [index for index, by_template in enumerate(templated) if not by_template]
    rendered = [index for index, by_template in enumerate(templated) if by_template]
    plain_encodings = encode_with_offsets(tokenizer, [texts[index] for index in plain], control=control)
    rendered_encodings = encode_rendered(tokenizer, [texts[index] for index in rendered], control)
    for index, encoding in zip([*plain, *rendered], [*plain_encodings, *rendered_encodings], strict=True):
        token_ids[index] = encoding.ids
    return token_ids


def _count_shared_ids(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of ids that both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))
