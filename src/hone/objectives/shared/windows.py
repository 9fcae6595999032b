"""A long text beside a question: windows of it that overlap, each with the question, within a model's length."""

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
    """A question's ids and those of a part of its context, whose tokens stand for characters `starts` to `ends` of it.

    `lost` counts the tokens that were cut off the question.
    """

    question: list[int]
    ids: list[int]
    starts: list[int]
    ends: list[int]
    lost: int
    is_first: bool
    is_last: bool

    def find(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and last token of the characters `start` to `end`; None where they are not all in the window."""
        touching = [at for at, (a, b) in enumerate(zip(self.starts, self.ends, strict=True)) if a < end and b > start]
        if not touching:
            return None
        first, last = touching[0], touching[-1]
        begins = first > 0 or self.is_first or self.starts[0] <= start
        ends = last < len(self.ids) - 1 or self.is_last or self.ends[-1] >= end
        return (first, last) if begins and ends else None


@dataclass(frozen=True)
class Frame:
    """A tokenizer's special tokens around a pair of texts, and the segments of the two and of these."""

    before: list[int]
    between: list[int]
    behind: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """The frame that the tokenizer puts around a pair; `windows` or `encodings` must have been called before."""
        pair = tokenizer.backend_tokenizer.encode("a", "a")
        sides = pair.sequence_ids
        first, second = ([at for at, side in enumerate(sides) if side == of] for of in (0, 1))
        cuts = (0, first[0], first[-1] + 1, second[0], second[-1] + 1, len(sides))
        ids, types = ([of[a:b] for a, b in pairwise(cuts)] for of in (pair.ids, pair.type_ids))
        return cls(ids[0], ids[2], ids[4], (types[0], types[1][0], types[2], types[3][0], types[4]))

    def __len__(self) -> int:
        return len(self.before) + len(self.between) + len(self.behind)

    def around(self, window: Window) -> tuple[list[int], list[int], int]:
        """The ids of a question and its window, their segments, and where the window begins."""
        ids = [*self.before, *window.question, *self.between]
        start, question, middle, context, end = self.types
        types = [*start, *[question] * len(window.question), *middle, *[context] * len(window.ids), *end]
        return [*ids, *window.ids, *self.behind], types, len(ids)


def split_into_windows(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int, stride: int
) -> list[list[Window]]:
    """For each question and context the windows that hold all of the context, one at least.

    With its frame none has more than `max_length` ids. Two neighbours have `stride` tokens in common, or half a window
    where that is less. A question has at most half of what a frame leaves. Raises ConfigError where that is nothing.
    """
    questions = encode_with_offsets(tokenizer, [question for question, _ in pairs], special=False)
    distinct = list(dict.fromkeys(context for _, context in pairs))  # SQuAD asks five questions of each
    whole = {
        context: (encoding.ids, encoding.offsets)
        for context, encoding in zip(distinct, encode_with_offsets(tokenizer, distinct, special=False), strict=True)
    }
    left = max_length - len(Frame.of(tokenizer))
    if left < 2:
        raise ConfigError(
            f"{max_length} tokens do not hold a question and a context",
            where="tokenization.max_length",
            fix="Set it to 384, or to what the base model takes.",
        )
    found = []
    for question, (_, context) in zip((one.ids for one in questions), pairs, strict=True):
        ids, offsets = whole[context]
        asked = question[: left // 2]
        room = left - len(asked)
        places = [slice(start, start + room) for start in _starts(len(ids), room, min(stride, room // 2))]
        found.append(
            [
                Window(
                    question=asked,
                    ids=ids[at],
                    starts=[begin for begin, _ in offsets[at]],
                    ends=[end for _, end in offsets[at]],
                    lost=len(question) - len(asked),
                    is_first=at is places[0],
                    is_last=at is places[-1],
                )
                for at in places
            ]
        )
    return found


def _starts(tokens: int, room: int, shared: int) -> list[int]:
    """Where windows of `room` tokens begin, the last one reaching the end."""
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(starts[-1] + room - shared)
    return starts
