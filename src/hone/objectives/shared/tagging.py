"""Words and their tags: how a text is split into words, and which entities a row of tags names.

The scheme of tags is one of

prefixed   BIO, BIOES (IOBES) or IO: O, and B-, I-, E-, S- before a type, or these letters alone, type _
runs       types without prefixes and O: neighbouring words of one type are one entity
words      no O: each word has a tag of its own, as parts of speech are

Tags that are written otherwise (`hone.objectives.shared.tag_forms`) are brought into the first of these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from hone.objectives.shared.json_cells import load_json
from hone.objectives.shared.spans import Span, describe_span
from hone.objectives.shared.tag_forms import OUTSIDE, find_form, is_standard
from hone.writing_systems import CHARACTER_WORD

Scheme = Literal["prefixed", "runs", "words"]
Extent = tuple[int, int]

# A character of a script without spaces, with the marks that follow it.
_UNSPACED = re.compile(
    CHARACTER_WORD + "[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3]*"
)
_SOLID = re.compile(r"\S+")
_PLAIN_SPACE = re.compile(r"[ \t\r\n]+")


class Entity(NamedTuple):
    """Words `start` to `end`, the latter not among them, that are of one type."""

    start: int
    end: int
    type: str


def find_scheme(tags: Iterable[str]) -> Scheme:
    """The scheme of a set of tags in the standard form (`convert_tags`)."""
    distinct = set(tags)
    if all(map(is_standard, distinct)):
        return "prefixed"
    return "runs" if OUTSIDE in distinct else "words"


def tag_type(tag: str, scheme: Scheme) -> str:
    """The type that a tag other than O names."""
    return (tag[2:] or "_") if scheme == "prefixed" else tag


def list_types(labels: Iterable[str], scheme: Scheme) -> list[str]:
    """The types that a set of tags names, sorted."""
    return sorted({tag_type(tag, scheme) for tag in labels if scheme == "words" or tag != OUTSIDE})


def find_entities(tags: Sequence[str | None], scheme: Scheme) -> list[Entity]:
    """The entities that the tags of a row name; None is a word that has no tag.

    As conlleval (Tjong Kim Sang, CoNLL-2000) and seqeval's default mode count them: an I- or E- that follows no word of
    its type begins an entity.
    """
    if scheme == "words":
        return [Entity(index, index + 1, tag) for index, tag in enumerate(tags) if tag is not None]
    entities: list[Entity] = []
    start, previous = 0, (OUTSIDE, "")
    for index, tag in enumerate([*tags, OUTSIDE]):
        current = _parts(tag, scheme)
        if previous[0] != OUTSIDE and (_begins(previous, current) or current[0] == OUTSIDE):
            entities.append(Entity(start, index, previous[1]))
        if current[0] != OUTSIDE and _begins(previous, current):
            start = index
        previous = current
    return entities


def _parts(tag: str | None, scheme: Scheme) -> tuple[str, str]:
    if tag is None or tag == OUTSIDE:
        return OUTSIDE, ""
    return (tag[0] if scheme == "prefixed" else "I"), tag_type(tag, scheme)


def _begins(before: tuple[str, str], now: tuple[str, str]) -> bool:
    """Whether a new entity begins between two words, if the second is in one."""
    return now[0] in "BS" or before[0] in ("E", "S", OUTSIDE) or before[1] != now[1]


def parse_list(value: Any, name: str) -> list[Any]:
    """The items of a list, of a list as JSON text, or of a text split at spaces; ValueError names the field else."""
    if isinstance(value, str):
        items = parse_json_list(value)
        return [item for item in _PLAIN_SPACE.split(value) if item] if items is None else items
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ValueError(f"{name}: neither a list nor text but {value!r:.60}")


def parse_json_list(value: str) -> list[Any] | None:
    """The list that a text is in JSON, None where it is none."""
    if not value.lstrip().startswith("["):
        return None
    try:
        items = load_json(value)
    except ValueError:
        return None
    return items if isinstance(items, list) else None


def check_words(tokens: Sequence[Any], tags: Sequence[Any]) -> None:
    """Raises ValueError, naming the field, where words and tags are not texts of equal number and of one scheme."""
    if len(tokens) != len(tags):
        raise ValueError(f"tags: not as many as tokens: {len(tags)} tags, {len(tokens)} tokens")
    if not tokens:
        raise ValueError("tokens: there are none")
    for name, items in (("tokens", tokens), ("tags", tags)):
        for index, item in enumerate(items):
            if not isinstance(item, str) or not item.strip():
                hint = "; give the tag's name" if name == "tags" and isinstance(item, int) else ""
                raise ValueError(f"{name}: item {index} is not text but {item!r:.60}{hint}")
    find_form(tags)


def join_words(words: Sequence[str]) -> tuple[str, list[Extent]]:
    """The words with a space between, and where each stands in that text."""
    extents, start = [], 0
    for word in words:
        extents.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), extents


def find_word_extents(text: str, split: str, cuts: Iterable[int] = ()) -> list[Extent]:
    """Where the words of `text` are, split at spaces, or at punctuation too, and at the characters `cuts`.

    In scripts without spaces between words each character, with its marks, is a word.
    """
    bounds = set(cuts)
    for match in _UNSPACED.finditer(text):
        bounds.update(match.span())
    if split == "punctuation":
        marks = [index for index, sign in enumerate(text) if unicodedata.category(sign)[0] in "PS" and sign != "_"]
        bounds.update(marks, (index + 1 for index in marks))
    extents: list[Extent] = []
    for match in _SOLID.finditer(text):
        start, end = match.span()
        edges = [start, *(index for index in range(start + 1, end) if index in bounds), end]
        extents += pairwise(edges)
    return extents


def find_words(value: str, split: str) -> tuple[str, list[Extent]]:
    """A text, and where its words stand: those of a list in JSON joined by spaces, or those of the plain text."""
    words = parse_json_list(value)
    if words is not None and all(isinstance(word, str) for word in words):
        return join_words(words)
    return value, find_word_extents(value, split)


def tag_spans(text: str, spans: Sequence[Span], split: str) -> dict[str, list[str]]:
    """`tokens` and `tags` (BIO) of a text with labelled spans of characters.

    A word is cut where a span begins or ends inside it. Raises ValueError for spans that overlap or hold no word.
    """
    ordered = sorted(spans)
    for first, second in pairwise(ordered):
        if second.start < first.end:
            raise ValueError(f"spans: {describe_span(first, text)} and {describe_span(second, text)} overlap")
    extents = find_word_extents(text, split, [edge for span in ordered for edge in span[:2]])
    tags = [OUTSIDE] * len(extents)
    for span in ordered:
        inside = [index for index, (start, end) in enumerate(extents) if span.start <= start and end <= span.end]
        if not inside:
            raise ValueError(f"spans: {describe_span(span, text)} holds no word")
        for index in inside:
            tags[index] = f"{'B' if index == inside[0] else 'I'}-{span.label}"
    return {"tokens": [text[start:end] for start, end in extents], "tags": tags}
