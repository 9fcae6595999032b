"""Conversations as token ids, and as labels of the tokens that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hone.errors import ModelError
from hone.objectives.chat import template as chat_template
from hone.objectives.chat.conversations import Conversation, parse_conversation
from hone.objectives.shared.special_tokens import SpecialTokens, get_special_tokens
from hone.objectives.shared.tokenizer import encode_rendered

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

MASKED = -100  # the label of a token that is not learned; PyTorch's cross entropy skips it


class Entry(NamedTuple):
    """An encoded row: its id, token ids, labels, the numbers of tokens of the prompt and of tokens cut off."""

    id: str
    token_ids: list[int]
    labels: list[int]
    prompt_length: int
    lost: int


def encode_training_rows(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, control: Sequence[str] = (), *, strict: bool
) -> list[Entry]:
    """The rows that have labels within `max_length` tokens. Raises ValueError for a row that is not a conversation."""
    entries: list[Entry] = []
    conversations = _parse_hidden(rows, tokenizer, control, strict)
    names = rows["id"].to_pylist()
    for name, (ids, labels, prompt_length) in zip(names, label_turns(tokenizer, conversations, control), strict=True):
        if any(label != MASKED for label in labels[:max_length]):
            # Generation needs the last answer as its reference: there is no prompt if that is cut.
            is_complete = all(label == MASKED for label in labels[max_length:])
            lost = max(0, len(ids) - max_length)
            entries.append(
                Entry(name, ids[:max_length], labels[:max_length], prompt_length if is_complete else 0, lost)
            )
    return entries


def encode_prompts(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, control: Sequence[str] = (), *, strict: bool
) -> list[Entry]:
    """The rows' prompts for an answer, without labels, cut at the beginning to `max_length` tokens."""
    questions = [conversation.question for conversation in _parse_hidden(rows, tokenizer, control, strict)]
    texts = [chat_template.render_conversation(tokenizer, question, prompt=True) for question in questions]
    entries: list[Entry] = []
    for name, encoding in zip(rows["id"].to_pylist(), encode_rendered(tokenizer, texts, control), strict=True):
        ids = encoding.ids[-max_length:]
        entries.append(Entry(name, ids, [], len(ids), len(encoding.ids) - len(ids)))
    return entries


def entries_to_table(entries: Sequence[Entry], end: int, labelled: bool) -> pa.Table:
    """The entries as a table, with `labels` if `labelled`, and with the end-of-turn token `end` in every row."""
    import pyarrow as pa

    names, ids, labels, prompt_lengths, lost = zip(*entries, strict=True) if entries else ((), (), (), (), ())
    lists = pa.list_(pa.int32())
    return pa.table(
        {
            "id": pa.array(names, pa.string()),
            "input_ids": pa.array(ids, lists),
            **({"labels": pa.array(labels, lists)} if labelled else {}),
            "prompt": pa.array(prompt_lengths, pa.int32()),
            "end": pa.array([end] * len(names), pa.int32()),
            "lost": pa.array(lost, pa.int32()),
        }
    )


def find_bad_row(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, labelled: bool, strict: bool) -> str:
    """A description of the first row that cannot be encoded, for an error message."""
    for row in rows.select(["id", "messages"]).to_pylist():
        try:
            conversation = parse_conversation(row["messages"], strict=strict)
            chat_template.render_conversation(tokenizer, conversation if labelled else conversation.question)
        except ValueError:
            return f"row {row['id']}"
    return "a row"


def _parse_hidden(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, control: Sequence[str], strict: bool
) -> list[Conversation]:
    """The rows' conversations, in which names of special tokens are hidden from the chat template's tokens.

    They are hidden in the parsed values: JSON may write a name in other characters, as \\u003c for <.
    """
    special = get_special_tokens(tokenizer, control)
    conversations = (parse_conversation(value, strict=strict) for value in rows["messages"].to_pylist())
    return [
        Conversation(_hide_names(conversation.messages, special), _hide_names(conversation.tools, special))
        for conversation in conversations
    ]


def _hide_names(value: Any, special: SpecialTokens) -> Any:
    """The value with the names of special tokens hidden in every string, keys too."""
    if isinstance(value, str):
        return special.hide(value)
    if isinstance(value, dict):
        return {special.hide(name): _hide_names(inner, special) for name, inner in value.items()}
    return [_hide_names(inner, special) for inner in value] if isinstance(value, list | tuple) else value


def label_turns(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], control: Sequence[str] = ()
) -> list[tuple[list[int], list[int], int]]:
    """For each conversation its token ids, labels, and the number of tokens before the last turn that is learned."""
    rendered = [chat_template.render_turns(tokenizer, conversation) for conversation in conversations]
    end_ids = _list_end_ids(tokenizer)
    encodings = encode_rendered(tokenizer, [text for text, _ in rendered], control)
    labelled = []
    for (text, spans), encoding in zip(rendered, encodings, strict=True):
        labels, first = [MASKED] * len(encoding.ids), 0
        for span in spans:
            first, stop = _find_turn_tokens(encoding, text, span, end_ids)
            labels[first:stop] = encoding.ids[first:stop]
        labelled.append((encoding.ids, labels, first))
    return labelled


def _find_turn_tokens(encoding: Any, text: str, span: tuple[int, int], end_ids: set[int]) -> tuple[int, int]:
    """The tokens of a turn, [first, stop), up to its end mark: the last special token, before whitespace at most.

    If a template's generation block leaves the mark out, it is the next token. Raises ModelError if there is no mark.
    """
    import numpy as np

    start, end = span
    offsets = np.array(encoding.offsets)
    # A token across the start, such as one that merges the prompt's last space with a word, belongs to the turn.
    first = int(min(offsets[:, 0].searchsorted(start), offsets[:, 1].searchsorted(start, "right")))
    stop = int(offsets[:, 0].searchsorted(end))
    for index in reversed(range(first, stop)):
        if encoding.ids[index] in end_ids:
            return first, index + 1
        if text[slice(*encoding.offsets[index])].strip():
            break
    if stop < len(encoding.ids) and encoding.ids[stop] in end_ids:
        return first, stop + 1
    raise ModelError(
        f"its chat template ends the assistant's turn {text[start:end][-20:]!r} without a special token:"
        " the model would not learn to stop",
        where="objective.template",
        fix="Set objective.template to a template that ends turns with a special token, such as chatml.",
    )


def _list_end_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The special tokens that may end a turn: all but the unknown and the start token."""
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    # The end token counts even if it is also the start token, as in GPT-2.
    return (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id, tokenizer.bos_token_id} | (
        {tokenizer.eos_token_id} - {None}
    )


def last_labelled_turn(labels: np.ndarray) -> np.ndarray:
    """The token ids of the last run of consecutive labels."""
    import numpy as np

    positions = np.flatnonzero(labels != MASKED)
    breaks = np.flatnonzero(np.diff(positions) > 1)
    return labels[positions[breaks[-1] + 1 :] if len(breaks) else positions]
