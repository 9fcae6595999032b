"""Examples are spread over the classes, or nearest to the question by the definitions of BM25 and of the cosine."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hone.evaluation.rivals import shots
from hone.evaluation.rivals.shots import choose_bm25, choose_nearest, choose_random, load_embedder
from tests.tiny_bases import WORDS, tiny, tiny_bert


def random_texts(count: int, seed: int, longest: int = 12) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, longest))) for _ in range(count)]


def naive_bm25(texts: Sequence[str], query: str, count: int) -> list[int]:
    """Row numbers by the formula, one word of the query after the other; nearest last."""
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(texts)
    scores = [0.0] * len(texts)
    for word in query.split():
        frequency = sum(word in text for text in words)
        rarity = math.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
        for row, text in enumerate(words):
            times = text.count(word)
            scores[row] += rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(text) / mean))
    return sorted(range(len(texts)), key=lambda row: (-round(scores[row], 9), row))[:count][::-1]


def test_random_examples_are_spread_over_the_classes() -> None:
    strata = ["common"] * 90 + ["rare"] * 2 + ["other"] * 8
    rows = choose_random(100, 9, 3, strata)
    assert Counter(strata[row] for row in rows) == {"common": 4, "other": 3, "rare": 2} or Counter(
        strata[row] for row in rows
    ) == {"common": 3, "other": 4, "rare": 2}
    assert len(set(rows)) == 9
    assert rows == choose_random(100, 9, 3, strata)
    assert rows != choose_random(100, 9, 4, strata)
    assert {strata[choose_random(100, 1, seed, strata)[0]] for seed in range(40)} == set(strata)


def test_random_examples_of_few_rows_are_all_rows_once() -> None:
    assert sorted(choose_random(5, 8, 0)) == [0, 1, 2, 3, 4]
    assert choose_random(5, 0, 0) == []
    assert choose_random(0, 8, 0) == []
    firsts = Counter(choose_random(5, 1, seed)[0] for seed in range(200))
    assert set(firsts) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("count", "rows"), [(4, 300), (1, 300), (7, 7), (9, 5)])
def test_bm25_is_its_formula_whatever_the_blocks(count: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, queries = random_texts(rows, 1), random_texts(50, 2)
    expected = [naive_bm25(texts, query, count) for query in queries]
    assert choose_bm25(texts, queries, count).tolist() == expected
    monkeypatch.setattr(shots, "_QUERIES", 7)
    monkeypatch.setattr(shots, "_TEXTS", 16)
    assert choose_bm25(texts, queries, count).tolist() == expected


def test_bm25_puts_the_same_text_last_and_breaks_ties_by_row() -> None:
    texts = ["lost card", "my money", "the lost card", "my money", "please"]
    assert choose_bm25(texts, ["The LOST card!"], 2).tolist() == [[0, 2]]
    assert choose_bm25(texts, ["money"], 3).tolist() == [[0, 3, 1]]
    assert choose_bm25(texts, ["unheard-of words"], 2).tolist() == [[1, 0]]


def test_bm25_ties_do_not_depend_on_the_order_of_adding() -> None:
    """Two texts whose words have the same three frequencies, in opposite orders in the query."""
    for times in range(20):
        frequencies = (("a", "f", times), ("b", "e", times + 3), ("c", "d", 2 * times + 7))
        others = [word for *pair, count in frequencies for word in pair for _ in range(count)]
        for pair in (["a b c", "d e f"], ["d e f", "a b c"]):
            assert choose_bm25([*pair, *others], ["a b c d e f"], 2).tolist() == [[1, 0]]


def test_bm25_matches_characters_of_scripts_without_spaces() -> None:
    assert choose_bm25(["我的卡丢了", "我想退款", "card"], ["退款在哪里"], 1).tolist() == [[1]]


def test_there_may_be_no_texts_no_queries_and_no_words() -> None:
    assert choose_bm25([], ["card"], 3).shape == (1, 0)
    assert choose_bm25(["card"], [], 3).shape == (0, 1)
    assert choose_bm25(["", ""], ["", "card"], 2).tolist() == [[1, 0], [1, 0]]


def test_the_nearest_vector_is_last() -> None:
    memory = np.eye(4, dtype=np.float32)
    query = np.array([[0.1, 0.9, 0.3, 0.2]], np.float32)
    query /= np.linalg.norm(query)
    blocks = [(memory[:2], np.arange(2)), (memory[2:], np.arange(2, 4))]
    assert choose_nearest(blocks, query, 3).tolist() == [[3, 2, 1]]


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2"])
def test_embeddings_of_a_batch_are_those_of_single_texts(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the texts, across blocks; an empty text has one too."""
    embedder, texts = load_embedder(tiny(family, tmp_path / "base"), 32), [*random_texts(40, 5), ""]
    single = np.concatenate([vectors for text in texts for vectors, _ in embedder.embed_texts([text])])
    monkeypatch.setattr(shots, "BLOCK", 16)
    blocks = list(embedder.embed_texts(texts))
    assert [len(vectors) for vectors, _ in blocks] == [16, 16, 9]
    assert np.concatenate([rows for _, rows in blocks]).tolist() == list(range(41))
    assert np.concatenate([vectors for vectors, _ in blocks]) == pytest.approx(single, abs=1e-5)
    assert np.linalg.norm(single, axis=1) == pytest.approx(np.ones(41), abs=1e-5)


def test_an_embedder_chooses_by_cosine(tmp_path: Path) -> None:
    embedder, texts = load_embedder(tiny_bert(tmp_path / "base"), 10**6), random_texts(60, 7)
    queries = [texts[17], *random_texts(5, 8)]
    every = np.concatenate([vectors for vectors, _ in embedder.embed_texts(texts)])
    asked = np.concatenate([vectors for vectors, _ in embedder.embed_texts(queries)])
    nearest = embedder.choose(texts, queries, 4)
    similarities = np.take_along_axis(asked @ every.T, nearest, 1)
    assert similarities == pytest.approx(np.sort(asked @ every.T, axis=1)[:, -4:], abs=1e-6)
    assert texts[nearest[0, -1]] == texts[17]
    assert embedder.choose([], queries, 4).shape == (6, 0)
    assert embedder.choose(texts, [], 4).shape == (0, 4)


def test_a_long_text_is_embedded_by_its_first_tokens(tmp_path: Path) -> None:
    embedder = load_embedder(tiny_bert(tmp_path / "base", positions=8), 512)
    assert embedder.max_length == 8
    [(vectors, _)] = embedder.embed_texts(["the a is was where my card", "the a is was where my money lost"])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
