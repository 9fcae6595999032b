"""Prompts and completions as token ids, and encoded rows as padded sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.errors import DataError
from hone.objectives.preference.rows import Messages, Text, render_plain
from hone.objectives.shared.padding import attention_mask, pad_rows

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of a token that is not of a completion
CHOSEN, REJECTED, OTHER = 0, 1, 2


@dataclass(frozen=True)
class Tokens:
    """Token ids of a row; none for a completion that is not there."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def flat(self) -> list[int]:
        """The prompt with each completion."""
        return [token for part in (self.chosen, self.rejected) if part for token in (*self.prompt, *part)]

    @property
    def longest(self) -> int:
        """The tokens of its longer sequence."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode_pairs(
    ids: Sequence[str], rows: Sequence[tuple[Text, Text, Text]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> pa.Table:
    """`id`, `input_ids`, `lost`, and the tokens of `prompt`, `chosen` and `rejected` (int32, 0 for what is not there).

    A row's `input_ids` are prompt and chosen, then prompt and rejected. `other` (list<int32>) is a completion of the
    next row, chosen and rejected by turns, which KTO measures with. `longest` is the longer sequence before the cut.
    """
    import pyarrow as pa

    whole = _tokens(rows, tokenizer, ids)
    found = [_cut(row, max_length) for row in whole]
    turns = [(row.rejected or row.chosen) if at % 2 else (row.chosen or row.rejected) for at, row in enumerate(found)]
    others = [turn[: max_length - len(row.prompt)] for row, turn in zip(found, [*turns[1:], *turns[:1]], strict=True)]
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "input_ids": pa.array([row.flat for row in found], pa.list_(pa.int32())),
            "prompt": pa.array([len(row.prompt) for row in found], pa.int32()),
            "chosen": pa.array([len(row.chosen) for row in found], pa.int32()),
            "rejected": pa.array([len(row.rejected) for row in found], pa.int32()),
            "other": pa.array(others, pa.list_(pa.int32())),
            "longest": pa.array([row.longest for row in whole], pa.int32()),
            "lost": pa.array([len(a.flat) - len(b.flat) for a, b in zip(whole, found, strict=True)], pa.int32()),
        }
    )


def encode_prompts(
    ids: Sequence[str], prompts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, most: int
) -> pa.Table:
    """`id`, `input_ids` (the last `most` tokens of each prompt) and `lost`."""
    import pyarrow as pa

    found = _prompt_tokens(prompts, tokenizer)
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "input_ids": pa.array([row[-most:] for row in found], pa.list_(pa.int32())),
            "lost": pa.array([max(0, len(row) - most) for row in found], pa.int32()),
        }
    )


def collate_sequences(rows: Mapping[str, Sequence[Any]], pad_id: int, others: bool) -> dict[str, Tensor]:
    """The rows' sequences as a batch: row by row the chosen, then the rejected, where they are there.

    `input_ids`, `attention_mask`, `labels` [sequences, longest]; `side` [sequences] is CHOSEN or REJECTED, `row` is
    the place of its row; `reference` [sequences], where it is known, the reference's log-probability of a completion.
    With `others` the same of prompts with another row's completion, under names that begin with `other_`.
    """
    own = [list(_of_row(rows, at)) for at in range(len(rows["input_ids"]))]
    batch = _padded([one for row in own for one in row], pad_id)
    if others:
        batch |= {f"other_{name}": tensor for name, tensor in _padded(_others(rows, own), pad_id).items()}
    return batch


def collate_prompts(rows: Mapping[str, Sequence[Any]], pad_id: int) -> dict[str, Tensor]:
    """The rows' prompts, padded on the left: an answer goes on where they end."""
    backwards = [list(row)[::-1] for row in rows["input_ids"]]
    table, mask = pad_rows(backwards, pad_id), attention_mask(backwards)
    return {"input_ids": table.flip(1), "attention_mask": mask.flip(1)}


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each labelled token, float32 [sequences, longest - 1]; 0 where there is no label.

    Only what is labelled is made float32 and normalized: with a vocabulary of 128,000 that is most of the memory.
    """
    import torch
    from torch.nn.functional import cross_entropy

    wanted = labels[:, 1:]
    there = wanted != IGNORED
    known = -cross_entropy(logits[:, :-1][there].float(), wanted[there], reduction="none")
    return torch.zeros(there.shape, device=logits.device).masked_scatter(there, known)


def split_by_sequence(log_probs: Tensor, labels: Tensor) -> list[Any]:
    """Each sequence's labelled tokens' log-probabilities, in order: float32 arrays."""
    import numpy as np

    there = (labels[:, 1:] != IGNORED).cpu()
    lengths: list[int] = there.sum(1).tolist()
    known = log_probs.detach().cpu()[there].numpy()
    return np.split(known, np.cumsum(lengths)[:-1])


Sequence_ = tuple[list[int], int, int, int, float | None]


def _of_row(rows: Mapping[str, Sequence[Any]], at: int) -> list[Sequence_]:
    """A row's sequences: ids, the length of the prompt, side, row, and the reference's log-probability if known."""
    ids, prompt = list(rows["input_ids"][at]), int(rows["prompt"][at])
    known = rows["reference"][at] if "reference" in rows else None
    found: list[Sequence_] = []
    start = said = 0
    for side, name in ((CHOSEN, "chosen"), (REJECTED, "rejected")):
        if length := int(rows[name][at]):
            reference = None if known is None else float(sum(known[said : said + length]))
            found.append((ids[start : start + prompt + length], prompt, side, at, reference))
            start, said = start + prompt + length, said + length
    return found


def _others(rows: Mapping[str, Sequence[Any]], own: Sequence[Sequence[Sequence_]]) -> list[Sequence_]:
    """Each row's prompt with the completion of another row."""
    found: list[Sequence_] = []
    for at, row in enumerate(own):
        ids, prompt, *_ = row[0]
        other = [int(token) for token in rows["other"][at]]
        known = rows["reference"][at][-len(other) :] if "reference" in rows else None
        found.append((ids[:prompt] + other, prompt, OTHER, at, None if known is None else float(sum(known))))
    return found


def _padded(found: Sequence[Sequence_], pad_id: int) -> dict[str, Tensor]:
    import torch

    ids = [one[0] for one in found]
    labels = [[IGNORED] * one[1] + one[0][one[1] :] for one in found]
    batch: dict[str, torch.Tensor] = {
        "input_ids": pad_rows(ids, pad_id),
        "attention_mask": attention_mask(ids),
        "labels": pad_rows(labels, IGNORED),
        "side": torch.tensor([one[2] for one in found]),
        "row": torch.tensor([one[3] for one in found]),
    }
    if found[0][4] is not None:
        batch["reference"] = torch.tensor([one[4] for one in found], dtype=torch.float32)
    return batch


def _cut(row: Tokens, most: int) -> Tokens:
    """The row with at most `most` tokens in each sequence.

    A prompt loses its beginning, but no more than down to half of `most`; completions lose what is then too long.
    """
    longest = max(len(row.chosen), len(row.rejected))
    prompt = row.prompt[-max(most - longest, most // 2) :]
    room = most - len(prompt)
    return Tokens(prompt, row.chosen[:room], row.rejected[:room])


def _tokens(
    rows: Sequence[tuple[Text, Text, Text]], tokenizer: PreTrainedTokenizerBase, ids: Sequence[str]
) -> list[Tokens]:
    """The rows' tokens.

    Prompt and completion are read together, as they will stand, and a completion begins where that departs from the
    prompt alone: a tokenizer may join the end of one to the beginning of the other. The end token stands after plain
    text, and where the chat template puts it.
    """
    alone = _prompt_tokens([prompt for prompt, *_ in rows], tokenizer)
    wholes = [_whole_tokens([(row[0], row[side]) for row in rows if row[side] != []], tokenizer) for side in (1, 2)]
    found = []
    for name, row, prompt in zip(ids, rows, alone, strict=True):
        whole = [next(of) if row[side] != [] else [] for side, of in zip((1, 2), wholes, strict=True)]
        # The first token of all is predicted from nothing: it is never of a completion.
        start = max(1, min(_alike(prompt, one) for one in whole if one))
        chosen, rejected = (one[start:] for one in whole)
        if any(one and len(one) <= start for one in whole):
            raise DataError("a completion has no token of its own", where=f"row {name}", fix="Drop such rows.")
        found.append(Tokens((whole[0] or whole[1])[:start], chosen, rejected))
    return found


def _prompt_tokens(prompts: Sequence[Text], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The prompts as they are put to a model, up to where its answer begins."""
    texts = [prompt if isinstance(prompt, str) else _rendered(tokenizer, prompt, answered=False) for prompt in prompts]
    ends = tokenizer.eos_token_id
    found = list(_ids(texts, [_templated(tokenizer, prompt) for prompt in prompts], tokenizer))
    return [row[:-1] if len(row) > 1 and row[-1] == ends else row for row in found]


def _whole_tokens(rows: Sequence[tuple[Text, Text]], tokenizer: PreTrainedTokenizerBase) -> Any:
    """An iterator over the ids of prompts with their completions, ended."""
    texts = [
        prompt + said
        if isinstance(prompt, str) and isinstance(said, str)
        else _rendered(tokenizer, [*prompt, *said], answered=True)
        for prompt, said in rows
    ]
    templated = [_templated(tokenizer, prompt) for prompt, _ in rows]
    end = tokenizer.eos_token_id
    for row, by_template in zip(_ids(texts, templated, tokenizer), templated, strict=True):
        yield row if by_template or end is None or row[-1:] == [end] else [*row, end]


def _templated(tokenizer: PreTrainedTokenizerBase, text: Text) -> bool:
    return not isinstance(text, str) and bool(tokenizer.chat_template)


def _rendered(tokenizer: PreTrainedTokenizerBase, text: Messages, *, answered: bool) -> str:
    """Messages by the tokenizer's chat template; as the HH data write them where it has none."""
    if not tokenizer.chat_template:
        return render_plain(text, answered=answered)
    return str(tokenizer.apply_chat_template(text, tokenize=False, add_generation_prompt=not answered))


def _ids(texts: Sequence[str], templated: Sequence[bool], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The token ids of whole texts; a template has written the special tokens of its own."""
    backend = tokenizer.backend_tokenizer
    if backend.padding is not None or backend.truncation is not None:  # left alone while another thread encodes
        backend.no_padding()
        backend.no_truncation()
    found: list[list[int]] = [[]] * len(texts)
    for special in (True, False):
        at = [i for i, by_template in enumerate(templated) if by_template is not special]
        encodings = backend.encode_batch_fast([texts[i] for i in at], add_special_tokens=special)
        for i, encoding in zip(at, encodings, strict=True):
            found[i] = encoding.ids
    return found


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
