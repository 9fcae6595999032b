"""A corpus of documents as passages, and the passages nearest to each question, which a prompt has as its context."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hone.evaluation.rivals.shots import Search
from hone.writing_systems import CHARACTER_WORD

# Between spaces, or a character of a script without spaces.
_WORD = re.compile(rf"{CHARACTER_WORD}|[^\s{CHARACTER_WORD[1:-1]}]+")
# The end of a word that ends a sentence: its mark, perhaps before closing quotes and brackets.
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]」』]*\Z")


@dataclass(frozen=True)
class Passage:
    """A part of a document: `text` is the document's text[start:end], in characters; `document` is its id."""

    document: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Corpus:
    """Passages that are searched exactly, by words or by embeddings (`choose_bm25`, `Embedder.choose`)."""

    passages: Sequence[Passage]
    search: Search

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The k passages nearest to each query, or all if there are fewer, nearest last as examples are (`shots`).

        Call it once with all queries: each call indexes all passages, in blocks, and keeps nothing.
        """
        nearest = self.search([passage.text for passage in self.passages], queries, k)
        return [[self.passages[row] for row in rows] for rows in nearest.tolist()]


def split_documents(documents: Iterable[tuple[str, str]], max_words: int, overlap: int) -> list[Passage]:
    """The passages of all documents, which are pairs of id and text, in their order; see `split_document`."""
    return [passage for name, text in documents for passage in split_document(name, text, max_words, overlap)]


def split_document(name: str, text: str, max_words: int, overlap: int) -> Iterator[Passage]:
    """Passages of at most `max_words` words, which together have every word; none for a text without words.

    A passage ends with the last sentence that ends in its second half, if there is one. The next passage repeats its
    last words, from the first sentence that starts within the last `overlap` words, or `overlap` words if none does: an
    answer that crosses the border is complete in one of them.
    Sentences end at their marks and at line ends. Raises ValueError unless 0 <= overlap < max_words.
    """
    if not 0 <= overlap < max_words:
        raise ValueError(f"an overlap of {overlap} words does not fit passages of {max_words}")
    spans = [match.span() for match in _WORD.finditer(text)]
    borders = _list_borders(text, spans)
    first = 0
    while first < len(spans):
        end = _choose_end(first, len(spans), borders, max_words, overlap)
        start_character, end_character = spans[first][0], spans[end - 1][1]
        yield Passage(name, start_character, end_character, text[start_character:end_character])
        if end == len(spans):
            return
        first = next((word for word in range(end - overlap, end) if borders[word]), end - overlap)


def _list_borders(text: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """For each word, and the end of the text, whether a sentence may start there."""
    borders = [True]
    following_starts = [*(start for start, _ in spans), len(text)][1:]
    for (start, end), following in zip(spans, following_starts, strict=True):
        borders.append("\n" in text[end:following] or bool(_SENTENCE_END.search(text[start:end])))
    return borders


def _choose_end(first: int, count: int, borders: Sequence[bool], max_words: int, overlap: int) -> int:
    """The word before which a passage ends that begins with the word `first`, of `count` words."""
    longest = first + max_words
    if longest >= count:
        return count
    # Beyond the overlap: the next passage begins after this one's first word.
    shortest = first + max(max_words // 2, overlap + 1)
    return next((word for word in range(longest, shortest - 1, -1) if borders[word]), longest)
