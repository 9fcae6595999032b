"""Rewriting of texts before a model reads them, and where a part of a rewritten text was in the original one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable


class Edit(NamedTuple):
    """Characters `start` to `end`, the latter not among them, that `text` replaces."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Rewritten:
    """A text after passes of edits; the offsets of a pass refer to the text that the passes before it made."""

    text: str
    passes: tuple[tuple[Edit, ...], ...] = ()

    def edit(self, edits: Iterable[Edit]) -> Rewritten:
        """The text after one more pass; `edits` are in the order of the text, and no two overlap."""
        edits, pieces, end = tuple(edits), [], 0
        for edit in edits:
            pieces += [self.text[end : edit.start], edit.text]
            end = edit.end
        return Rewritten("".join([*pieces, self.text[end:]]), (*self.passes, edits)) if edits else self

    def find_source(self, start: int, end: int) -> tuple[int, int]:
        """The characters of the original text that `start` to `end` come from: of a replaced part always the whole."""
        for edits, new_starts in zip(reversed(self.passes), reversed(self._new_starts), strict=True):
            start = _find_source(start, edits, new_starts, is_end=False)
            end = _find_source(end, edits, new_starts, is_end=True)
        return start, end

    @cached_property
    def _new_starts(self) -> list[list[int]]:
        """Where the edits of each pass begin in the text that it made."""
        starts_by_pass = []
        for edits in self.passes:
            starts, growth = [], 0
            for edit in edits:
                starts.append(edit.start + growth)
                growth += len(edit.text) - (edit.end - edit.start)
            starts_by_pass.append(starts)
        return starts_by_pass


@runtime_checkable
class Rewriter(Protocol):
    """A curation step whose rewriting belongs to the model.

    It rewrites validation and test rows too, it is recorded in the registered model, and the served model applies it to
    what is sent. Its module is copied into the model, and its `libraries` are among the model's requirements.
    """

    def rewrite(self, text: str) -> Rewritten:
        """The text as the model reads it."""

    def rewrite_words(self, words: Sequence[str]) -> list[str]:
        """The words of one text as the model reads them, as many."""


def rewrite_text(text: str, rewriters: Iterable[Rewriter]) -> Rewritten:
    """The text after all `rewriters`, one after the other."""
    rewritten = Rewritten(text)
    for rewriter in rewriters:
        step = rewriter.rewrite(rewritten.text)
        rewritten = Rewritten(step.text, (*rewritten.passes, *step.passes))
    return rewritten


def _find_source(position: int, edits: Sequence[Edit], new_starts: Sequence[int], *, is_end: bool) -> int:
    """The position before a pass of edits; within a replaced part its beginning, or its end if `is_end`."""
    index = bisect_right(new_starts, position - is_end) - 1
    if index < 0:
        return position
    edit, new_end = edits[index], new_starts[index] + len(edits[index].text)
    if position < new_end:
        return edit.end if is_end else edit.start
    return edit.end + position - new_end
