"""Pairs of words that are swapped in texts: `he` for `she` and `she` for `he`, at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property


@dataclass(frozen=True)
class Lexicon:
    """Pairs of words, with the `source` of the list and its `limits` in sentences.

    `only` is the number of the pair that is swapped, None for all. A word that is in several pairs is swapped by the
    first of them: with (his, her) before (him, her), `her` becomes `his`, and `him` becomes `her`.
    """

    name: str
    pairs: Sequence[tuple[str, str]]
    source: str = ""
    limits: Sequence[str] = ()
    only: int | None = None

    def select(self, pair: int) -> Lexicon:
        """The lexicon that swaps only the words of the pair with this number that no pair before it has."""
        return replace(self, only=pair)

    def swap(self, text: str) -> str:
        """The text with every whole word of the lexicon replaced by the other word of its pair, in the same case."""
        return self._pattern.sub(lambda match: _match_case(match[0], *self._swaps[match[0].lower()][:2]), text)

    def find_pairs(self, text: str) -> set[int]:
        """The numbers of the pairs that replace a word of the text."""
        return {self._swaps[match[0].lower()][2] for match in self._pattern.finditer(text)}

    @cached_property
    def _swaps(self) -> dict[str, tuple[str, str, int]]:
        """Each word in lower case: itself and its replacement as they are written, and its pair's number."""
        swaps: dict[str, tuple[str, str, int]] = {}
        for number, (first, second) in enumerate(self.pairs):
            swaps.setdefault(first.lower(), (first, second, number))
            swaps.setdefault(second.lower(), (second, first, number))
        return {word: swap for word, swap in swaps.items() if self.only in (None, swap[2])}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = "|".join(re.escape(word) for word in sorted(self._swaps, key=lambda word: (-len(word), word)))
        return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


def _match_case(word: str, own: str, other: str) -> str:
    """`other` in the case of `word`, which the lexicon writes as `own`: HE -> SHE, He -> She."""
    if word == own:
        return other
    if len(word) > 1 and word.isupper():
        return other.upper()
    if word[0].isupper():
        return other[0].upper() + other[1:]
    return other.lower()
