"""Scripts without spaces between words: tags, spans and near duplicates see their words alike."""

from __future__ import annotations

import pytest

from hone.curation.dedup.folding import spread
from hone.objectives.shared.spans import is_inside_word
from hone.objectives.shared.tagging import find_word_extents


@pytest.mark.parametrize("text", ["ไทย", "ລາວ", "ကခ", "កខ", "ひら", "カタ", "漢字", "𠀀𠀁"])
def test_characters_are_words_of_their_own(text: str) -> None:
    assert [text[start:end] for start, end in find_word_extents(text, "spaces")] == list(text)
    assert spread(text).split() == list(text)
    assert not is_inside_word(text, 1)


@pytest.mark.parametrize("text", ["서울에", "བོད", "ㄅㄆ", "ｱｲ", "\uf900\uf901", "𰀀𰀁"])
def test_a_span_may_end_in_a_word_of_scripts_where_parts_of_words_are_meant(text: str) -> None:
    assert find_word_extents(text, "spaces") == [(0, len(text))]
    assert spread(text) == text.casefold()
    assert not any(is_inside_word(text, index) for index in range(len(text)))


@pytest.mark.parametrize("text", ["word", "слово", "λέξη", "שלום", "سلام", "हिन्दी"])
def test_a_span_that_ends_in_a_word_of_other_scripts_cuts_it(text: str) -> None:
    assert find_word_extents(text, "spaces") == [(0, len(text))]
    assert is_inside_word(text, 2)
