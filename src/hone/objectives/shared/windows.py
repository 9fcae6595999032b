"""Overlapping windows of a long text, each with a question, that fit a model's length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from hone.errors import ConfigError
from hone.objectives.shared.tokenizer import encode_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Window:
    """The token ids of a question and of a part of its context.

    `starts` and `ends`: the extent of each context token, in characters of the context. `lost`: the number of tokens
    cut off the question.
    """

    question: list[int]
    ids: list[int]
    starts: list[int]
    ends: list[int]
    lost: int
    is_first: bool
    is_last: bool

    def find_tokens(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and last token of the characters `start` to `end`; None if some of them are outside the window."""
        extents = enumerate(zip(self.starts, self.ends, strict=True))
        tokens = [token for token, (begin, stop) in extents if begin < end and stop > start]
        if not tokens:
            return None
        first, last = tokens[0], tokens[-1]
        # If the window begins or ends inside the span, some of the span's tokens are outside the window.
        has_start = first > 0 or self.is_first or self.starts[0] <= start
        has_end = last < len(self.ids) - 1 or self.is_last or self.ends[-1] >= end
        return (first, last) if has_start and has_end else None


@dataclass(frozen=True)
class Frame:
    """A tokenizer's special tokens before, between and after a pair of texts, and the segment ids.

    `types`: the segment ids of the tokens before, of the first text, of those between, of the second, of those after.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """The frame that the tokenizer puts around a pair of texts.

        Call `encode_with_offsets` without `max_length` first: truncation may still be on.
        """
        pair = tokenizer.backend_tokenizer.encode("a", "a")
        text_indices = pair.sequence_ids  # 0 or 1 for the texts' tokens, None for special ones
        first, second = ([i for i, text in enumerate(text_indices) if text == index] for index in (0, 1))
        cuts = (0, first[0], first[-1] + 1, second[0], second[-1] + 1, len(text_indices))
        ids, types = ([values[a:b] for a, b in pairwise(cuts)] for values in (pair.ids, pair.type_ids))
        return cls(ids[0], ids[2], ids[4], (types[0], types[1][0], types[2], types[3][0], types[4]))

    def __len__(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def wrap_window(self, window: Window) -> tuple[list[int], list[int], int]:
        """The ids of question and window with special tokens, segment ids, and the window's first position."""
        ids = [*self.before, *window.question, *self.between]
        start, question, middle, context, end = self.types
        types = [*start, *[question] * len(window.question), *middle, *[context] * len(window.ids), *end]
        return [*ids, *window.ids, *self.after], types, len(ids)


def split_into_windows(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int, stride: int
) -> list[list[Window]]:
    """The windows of each pair of question and context, at least one, that together cover the context.

    Each has at most `max_length` ids with its frame. Neighbours share `stride` tokens, at most half a window. A
    question is cut to half of the ids that the frame leaves. Raises ConfigError if these are fewer than two.
    """
    questions = encode_with_offsets(tokenizer, [question for question, _ in pairs], special=False)
    distinct = list(dict.fromkeys(context for _, context in pairs))  # SQuAD asks five questions of each
    encoded_contexts = {
        context: (encoding.ids, encoding.offsets)
        for context, encoding in zip(distinct, encode_with_offsets(tokenizer, distinct, special=False), strict=True)
    }
    room_for_pair = max_length - len(Frame.from_tokenizer(tokenizer))
    if room_for_pair < 2:
        raise ConfigError(
            f"{max_length} tokens do not hold a question and a context",
            where="tokenization.max_length",
            fix="Set it to 384, or to what the base model takes.",
        )
    windows_by_pair = []
    for encoding, (_, context) in zip(questions, pairs, strict=True):
        ids, offsets = encoded_contexts[context]
        question = encoding.ids[: room_for_pair // 2]
        room = room_for_pair - len(question)
        parts = [slice(start, start + room) for start in _list_window_starts(len(ids), room, min(stride, room // 2))]
        windows_by_pair.append(
            [
                Window(
                    question=question,
                    ids=ids[part],
                    starts=[begin for begin, _ in offsets[part]],
                    ends=[end for _, end in offsets[part]],
                    lost=len(encoding) - len(question),
                    is_first=part is parts[0],
                    is_last=part is parts[-1],
                )
                for part in parts
            ]
        )
    return windows_by_pair


def _list_window_starts(tokens: int, room: int, shared: int) -> list[int]:
    """The first token of each window of `room` tokens, of which the last reaches the end."""
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(starts[-1] + room - shared)
    return starts
