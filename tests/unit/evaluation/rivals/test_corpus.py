"""Passages keep every word of a document, and are found by what is asked."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from hone.evaluation.rivals.corpus import Corpus, Passage, split_document, split_documents
from hone.evaluation.rivals.shots import choose_bm25


def random_document(draw: random.Random) -> str:
    """Words, sentences, lines, quotes and Chinese, with any spaces between."""
    pieces = ["word", "Other.", "end!»", "3.5", "卡片丢了。", "退款", "…", "(so?)", "a-b", "e.g."]
    spaces = [" ", "  ", "\n", "\n\n", "\t", "\u3000"]
    text = "".join(draw.choice(pieces) + draw.choice(spaces) for _ in range(draw.randint(0, 80)))
    return draw.choice(spaces) + text


def count_words(text: str) -> int:
    return len(list(split_document("d", text, 1, 0)))


@pytest.mark.parametrize("seed", range(40))
def test_passages_lose_no_word_and_none_is_too_long(seed: int) -> None:
    draw = random.Random(seed)
    text, max_words = random_document(draw), draw.randint(1, 25)
    overlap = draw.randint(0, max_words - 1)
    passages = list(split_document("d", text, max_words, overlap))
    covered = set()
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        assert 1 <= count_words(passage.text) <= max_words
        covered |= set(range(passage.start, passage.end))
    assert not any(character.strip() for n, character in enumerate(text) if n not in covered)
    for before, after in pairwise(passages):
        assert before.start < after.start
        assert before.end < after.end
        assert count_words(text[after.start : before.end]) <= overlap
    assert passages == list(split_document("d", text, max_words, overlap))


def test_a_passage_ends_with_a_sentence_and_the_next_repeats_one() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten."
    assert [passage.text for passage in split_document("d", text, 8, 3)] == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine. Ten.",
    ]
    assert [passage.text for passage in split_document("d", text, 8, 0)] == [
        "One two three. Four five six.",
        "Seven eight nine. Ten.",
    ]


def test_words_without_sentences_overlap_by_the_number_of_words() -> None:
    text = " ".join(map(str, range(10)))
    assert [passage.text for passage in split_document("d", text, 5, 2)] == ["0 1 2 3 4", "3 4 5 6 7", "6 7 8 9"]


def test_an_overlap_must_leave_room() -> None:
    for max_words, overlap in ((5, 5), (5, -1), (0, 0)):
        with pytest.raises(ValueError, match=f"{overlap} words"):
            list(split_document("d", "a b", max_words, overlap))


def test_the_passage_that_answers_is_the_last() -> None:
    documents = [
        ("fees", "A transfer is free. A card from abroad costs two euros."),
        ("empty", " \n"),
        ("loss", "Block a lost card at once. A new card comes by post."),
    ]
    passages = split_documents(documents, 7, 0)
    assert [passage.document for passage in passages] == ["fees", "fees", "loss", "loss"]
    corpus = Corpus(passages, choose_bm25)
    first, second = corpus.retrieve(["my card is lost", "is a transfer free"], 2)
    assert [len(first), len(second)] == [2, 2]
    assert first[-1] == Passage("loss", 0, 26, "Block a lost card at once.")
    assert second[-1].text == "A transfer is free."
    assert [len(rows) for rows in corpus.retrieve(["card"], 9)] == [4]
    assert Corpus([], choose_bm25).retrieve(["card"], 3) == [[]]
