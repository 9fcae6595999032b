"""Conversations as tokens: what is read, and what of it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError
from hone.objectives.chat import template as chat_template
from hone.objectives.chat.conversations import Conversation, parse_conversation

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

MASKED = -100
Entry = tuple[str, list[int], list[int], int, int]  # id, tokens, labels, tokens of the prompt, tokens lost


def encode_training_rows(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Entry]:
    """The rows that have labels within `max_length` tokens. Raises ValueError for a row that is no conversation."""
    found: list[Entry] = []
    conversations = [parse_conversation(value) for value in rows["messages"].to_pylist()]
    names = rows["id"].to_pylist()
    for name, (ids, labels, prompt) in zip(names, label_turns(tokenizer, conversations), strict=True):
        if any(label != MASKED for label in labels[:max_length]):
            whole = all(label == MASKED for label in labels[max_length:])
            lost = max(0, len(ids) - max_length)
            found.append((name, ids[:max_length], labels[:max_length], prompt if whole else 0, lost))
    return found


def encode_prompts(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Entry]:
    """The rows' prompts for an answer, the end of those longer than `max_length`; without labels."""
    questions = [parse_conversation(value).question for value in rows["messages"].to_pylist()]
    texts = [chat_template.render_conversation(tokenizer, question, prompt=True) for question in questions]
    found: list[Entry] = []
    for name, encoding in zip(rows["id"].to_pylist(), _encodings(tokenizer, texts), strict=True):
        kept = encoding.ids[-max_length:]
        found.append((name, kept, [], len(kept), len(encoding.ids) - len(kept)))
    return found


def entries_to_table(entries: Sequence[Entry], end: int, labelled: bool) -> pa.Table:
    """The entries by column, with labels where `labelled`, and the end-of-turn token."""
    import pyarrow as pa

    names, ids, labels, prompts, lost = zip(*entries, strict=True) if entries else ((), (), (), (), ())
    lists = pa.list_(pa.int32())
    return pa.table(
        {
            "id": pa.array(names, pa.string()),
            "input_ids": pa.array(ids, lists),
            **({"labels": pa.array(labels, lists)} if labelled else {}),
            "prompt": pa.array(prompts, pa.int32()),
            "end": pa.array([end] * len(names), pa.int32()),
            "lost": pa.array(lost, pa.int32()),
        }
    )


def find_bad_row(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, labelled: bool) -> str:
    """The first row that cannot be encoded."""
    for row in rows.select(["id", "messages"]).to_pylist():
        try:
            conversation = parse_conversation(row["messages"])
            chat_template.render_conversation(tokenizer, conversation if labelled else conversation.question)
        except ValueError:
            return f"row {row['id']}"
    return "a row"


def _encodings(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Any]:
    """The texts' encodings, whole and with offsets: a template writes its special tokens itself."""
    backend = tokenizer.backend_tokenizer
    if backend.padding is not None or backend.truncation is not None:  # left alone while another thread encodes
        backend.no_padding()
        backend.no_truncation()
    return list(backend.encode_batch(list(texts), add_special_tokens=False))


def label_turns(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]
) -> list[tuple[list[int], list[int], int]]:
    """Token ids, labels, and the number of tokens before the last turn that is learned from, of each conversation."""
    written = [chat_template.render_turns(tokenizer, conversation) for conversation in conversations]
    special = _special_ids(tokenizer)
    found = []
    for (text, spans), encoding in zip(written, _encodings(tokenizer, [text for text, _ in written]), strict=True):
        labels, first = [MASKED] * len(encoding.ids), 0
        for span in spans:
            first, last = _turn_tokens(encoding, text, span, special)
            labels[first:last] = encoding.ids[first:last]
        found.append((encoding.ids, labels, first))
    return found


def _turn_tokens(encoding: Any, text: str, span: tuple[int, int], special: set[int]) -> tuple[int, int]:
    """The tokens of a turn, [first, last), which end with its end mark: the last special token before mere spacing.

    Where a template's block leaves the mark out it is the next token. Raises ModelError where there is no mark.
    """
    import numpy as np

    start, end = span
    offsets = np.array(encoding.offsets)
    first = int(min(offsets[:, 0].searchsorted(start), offsets[:, 1].searchsorted(start, "right")))
    last = int(offsets[:, 0].searchsorted(end))
    for at in reversed(range(first, last)):
        if encoding.ids[at] in special:
            return first, at + 1
        if text[slice(*encoding.offsets[at])].strip():
            break
    if last < len(encoding.ids) and encoding.ids[last] in special:
        return first, last + 1
    raise ModelError(
        f"its chat template ends the assistant's turn {text[start:end][-20:]!r} with no token of the tokenizer's own:"
        " the model would not learn to stop",
        where="objective.template",
        fix="Name a template that ends turns with a special token: chatml does.",
    )


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The special tokens that may end a turn: not those for unknown words and beginnings."""
    added = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    return (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id, tokenizer.bos_token_id} | (
        {tokenizer.eos_token_id} - {None}
    )


def last_labelled_turn(labels: np.ndarray) -> np.ndarray:
    """The ids of the last unbroken stretch of labels."""
    import numpy as np

    at = np.flatnonzero(labels != MASKED)
    breaks = np.flatnonzero(np.diff(at) > 1)
    return labels[at[breaks[-1] + 1 :] if len(breaks) else at]
