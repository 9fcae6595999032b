"""Personal data in a list of words: a number or an address may go over several of them."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

from hone.curation.text.personal_data import TAGS, Match, find_personal_data

Find = Callable[[str], Iterable[Match]]
Piece = tuple[int, int, int]  # a word's index, and the characters of it

_NUMBER_MARKS = frozenset("-./()+:")
# An e-mail address of which each punctuation mark is a word of its own. Its last part must be one that is in use: in
# "see you @ home . They" it is not.
_SPACED_EMAIL = re.compile(
    r"(?<![\w.+%-])\w{1,64}(?: ?[.+%-] ?\w{1,64}){0,3} ?@ ?\w{1,63}(?: ?[.-] ?\w{1,63}){0,5} ?\. ?"
    r"(?:com|org|net|edu|gov|mil|info|biz|app|dev|eu|[a-z]{2})(?![\w-])"
)


def redact_words(
    words: Sequence[str], kinds: Sequence[str], find_more: Find, more_tag: str
) -> tuple[list[str], list[str]]:
    """As many words, with tags in place of data of `kinds`, and the kind of each match.

    A match over several words puts its tag in place of each of them. `find_more` finds matches of another kind in the
    words joined by spaces; `more_tag` is their tag.
    """
    candidates: list[tuple[str, list[Piece]]] = []
    for glued in (False, True):
        text, starts = _join(words, glued)
        matches = list(find_personal_data(text, kinds))
        if not glued:
            matches += [Match(*hit.span(), "email") for hit in _SPACED_EMAIL.finditer(text) if "email" in kinds]
            matches += find_more(text)
        candidates += [(match.kind, _list_pieces(match, words, starts)) for match in matches]
    chosen = _choose_longest(candidates)
    redacted = list(words)
    tags = dict.fromkeys((kind for kind, _ in chosen), more_tag) | TAGS
    pieces = sorted(((piece, tags[kind]) for kind, pieces in chosen for piece in pieces), reverse=True)
    for (index, start, end), tag in pieces:  # from the right, so that the offsets before stay as they are
        redacted[index] = redacted[index][:start] + tag + redacted[index][end:]
    return redacted, [kind for kind, _ in chosen]


def _join(words: Sequence[str], glued: bool) -> tuple[str, list[int]]:
    """The words with a space between, and where each begins in that text.

    If `glued`, without spaces around the punctuation inside numbers: ( 555 ) 123 - 4567 becomes (555)123-4567.
    """
    pieces: list[str] = []
    starts: list[int] = []
    length = 0
    for index, word in enumerate(words):
        space = "" if index == 0 or (glued and _is_one_number(words[index - 1][-1:], word[:1])) else " "
        pieces += [space, word]
        starts.append(length + len(space))
        length = starts[-1] + len(word)
    return "".join(pieces), starts


def _is_one_number(before: str, after: str) -> bool:
    """Whether two signs, of which one is a mark, belong to one number."""
    marks = (before in _NUMBER_MARKS, after in _NUMBER_MARKS)
    return any(marks) and all(mark or sign.isdigit() for mark, sign in zip(marks, (before, after), strict=True))


def _list_pieces(match: Match, words: Sequence[str], starts: Sequence[int]) -> list[Piece]:
    """The words that a match has a part of, and which part."""
    touched = range(max(0, bisect_right(starts, match.start) - 1), bisect_left(starts, match.end))
    pieces = ((i, max(0, match.start - starts[i]), min(len(words[i]), match.end - starts[i])) for i in touched)
    return [(index, start, end) for index, start, end in pieces if start < end]


def _choose_longest(candidates: Iterable[tuple[str, list[Piece]]]) -> list[tuple[str, list[Piece]]]:
    """Matches of which no two overlap, in the order of the text; of two that do the one with more characters."""
    taken: dict[int, list[tuple[int, int]]] = {}
    chosen = []
    for kind, pieces in sorted(candidates, key=lambda item: -sum(end - start for _, start, end in item[1])):
        if not any(start < b and end > a for index, start, end in pieces for a, b in taken.get(index, ())):
            chosen.append((kind, pieces))
            for index, start, end in pieces:
                taken.setdefault(index, []).append((start, end))
    return sorted(chosen, key=lambda item: item[1])
