"""Where a text occurs among the words of a row, whatever spaces are in either."""

from __future__ import annotations

from collections.abc import Sequence

from hone.objectives.shared import tagging


class WordSearch:
    """The words of a row, joined by spaces, to be searched for texts that consist of some of them.

    Spaces are left out of the comparison: `U.S.` is the words `U`, `.`, `S` and `.`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._text, self._extents = tagging.join_words(words)
        solid = ["".join(word.split()) for word in words]
        self._solid = "".join(solid)
        self._word_at_start: dict[int, int] = {}
        self._word_after_end: dict[int, int] = {}
        position = 0
        for index, word in enumerate(solid):
            if word:
                self._word_at_start[position] = index
                position += len(word)
                self._word_after_end[position] = index + 1

    def extract(self, first: int, after: int) -> str:
        """The words `first` to `after`, the latter not among them, as they are in the joined text."""
        return self._text[self._extents[first][0] : self._extents[after - 1][1]]

    def offset(self, word: int) -> int:
        """The first character of a word in the joined text."""
        return self._extents[word][0]

    def find(self, text: str) -> list[tuple[int, int]]:
        """All places of a text, as the first word and the one after the last, in order; they may overlap."""
        solid = "".join(text.split())
        places: list[tuple[int, int]] = []
        start = self._solid.find(solid) if solid else -1
        while start >= 0:
            first, after = self._word_at_start.get(start), self._word_after_end.get(start + len(solid))
            if first is not None and after is not None:
                places.append((first, after))
            start = self._solid.find(solid, start + 1)
        return places

    def is_ambiguous(self, text: str) -> bool:
        """Whether a text occurs more than once."""
        return len(self.find(text)) > 1
