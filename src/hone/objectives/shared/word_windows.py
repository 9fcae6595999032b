"""Overlapping windows of a long text, each of whole words, that fit a model's length."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hone.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Encoding

T = TypeVar("T")
NO_TOKEN = -1


class WordWindow(NamedTuple):
    """Some neighbouring words of a text, as token ids with the tokenizer's special tokens around them.

    ids      at most as many as fit
    first    index of the first word among those of the text
    words    for each of the words the position of its first token, -1 if it has none
    content  position after the last word's tokens
    lost     number of tokens of a single word that did not fit
    """

    ids: list[int]
    first: int
    words: list[int]
    content: int
    lost: int


def split_encoding(
    encoding: Encoding, extents: Sequence[tuple[int, int]], max_length: int, stride: int
) -> list[WordWindow]:
    """The windows of an encoded text, at least one, that together have all of its words.

    `encoding` has the special tokens, and is not truncated; `extents` are the words' characters. Neighbours share the
    words of the last `stride` tokens, at most half a window. Raises ConfigError if the special tokens leave no room.
    """
    words, content = find_first_tokens(encoding, extents)
    if len(encoding) <= max_length:
        return [WordWindow(list(encoding.ids), 0, words, content, 0)]
    own = [position for position, special in enumerate(encoding.special_tokens_mask) if not special]
    begin, end = own[0], own[-1] + 1
    room = max_length - begin - (len(encoding) - end)
    if room < 1:
        raise ConfigError(
            f"{max_length} tokens do not hold a word", where="tokenization.max_length", fix="Set it to 128 or more."
        )
    with_tokens = [index for index, position in enumerate(words) if position != NO_TOKEN]
    if not with_tokens:  # tokens that belong to no word say nothing about one
        return [WordWindow([*encoding.ids[:begin], *encoding.ids[end:]], 0, words, begin, 0)]
    starts = [begin, *(words[index] for index in with_tokens[1:])]
    ends = [*starts[1:], end]
    windows = []
    for first, last in _list_parts(starts, ends, room, min(stride, room // 2)):
        stop = min(ends[last - 1], starts[first] + room)
        first_word = with_tokens[first] if first else 0
        last_word = with_tokens[last] if last < len(with_tokens) else len(words)
        shift = begin - starts[first]
        windows.append(
            WordWindow(
                ids=[*encoding.ids[:begin], *encoding.ids[starts[first] : stop], *encoding.ids[end:]],
                first=first_word,
                words=[NO_TOKEN if place == NO_TOKEN else place + shift for place in words[first_word:last_word]],
                content=min(stop, content) + shift,
                lost=ends[last - 1] - stop,
            )
        )
    return windows


def merge_windows(firsts: Sequence[int], values_by_window: Sequence[Sequence[T]]) -> list[T]:
    """The values of a text's words from those of its windows, which begin at the words `firsts`.

    A word that two windows share has the value of the one in which it is farther from the edge.
    """
    merged: list[T] = []
    for first, values in zip(firsts, values_by_window, strict=True):
        middle = first + (len(merged) - first + 1) // 2
        merged = [*merged[:middle], *values[middle - first :]]
    return merged


def find_first_tokens(encoding: Encoding, extents: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """The position of each word's first token, -1 for none, and the position after the last word's tokens."""
    import numpy as np

    if not extents or not len(encoding):
        return [NO_TOKEN] * len(extents), 0
    starts, ends = np.array(extents).T
    begin, end = np.array(encoding.offsets).T
    word = np.searchsorted(ends, begin, side="right")  # a token that begins with a space belongs to the word after it
    inside = (end > begin) & (np.array(encoding.special_tokens_mask) == 0)
    inside &= (word < len(starts)) & (end > starts[np.minimum(word, len(starts) - 1)])
    positions = np.flatnonzero(inside)
    first = np.full(len(starts), NO_TOKEN)
    first[word[positions][::-1]] = positions[::-1]
    return first.tolist(), int(positions[-1]) + 1 if len(positions) else 0


def _list_parts(starts: Sequence[int], ends: Sequence[int], room: int, shared: int) -> list[tuple[int, int]]:
    """The first word of each window, and the one after its last; `starts` and `ends` are the words' token positions."""
    parts = []
    first = 0
    while True:
        after = max(first + 1, bisect_right(ends, starts[first] + room))
        parts.append((first, after))
        if after == len(starts):
            return parts
        # So far back that `shared` tokens repeat, but not so far that the next word would not fit.
        back = max(bisect_left(starts, ends[after - 1] - shared), bisect_left(starts, ends[after] - room))
        first = max(first + 1, min(back, after))
