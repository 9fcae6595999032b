from __future__ import annotations

import random
from itertools import accumulate, combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.curation.dedup import minhash
from hone.curation.dedup.folding import fold_to_tokens
from hone.curation.dedup.near import FEW, clusters, near_pairs

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()


def shingles(text: str, size: int = 3) -> set[tuple[str, ...]]:
    words = fold_to_tokens(text).split(" ")
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def by_comparing_all(texts: list[str], threshold: float) -> list[int]:
    first, sets = list(range(len(texts))), [shingles(text) for text in texts]
    for i, j in combinations(range(len(texts)), 2):
        if first[i] != first[j] and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]):
            low, high = sorted((first[i], first[j]))
            first = [low if leader == high else leader for leader in first]
    return first


def variations(rng: random.Random, bases: int, copies: int, length: int = 40) -> list[str]:
    texts = []
    for _ in range(bases):
        base = rng.choices(WORDS, k=length)
        for _ in range(copies):
            text = list(base)
            for _ in range(rng.randrange(4)):
                text[rng.randrange(length)] = f"word{rng.randrange(99)}"
            texts.append(" ".join(text))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("bases", "copies"), [(60, 5), (3, 3 * FEW)])
def test_clusters_are_those_that_comparing_all_pairs_gives(threshold: float, bases: int, copies: int) -> None:
    texts = variations(random.Random(f"{threshold} {bases}"), bases, copies)
    found = clusters(texts, threshold)
    assert found == by_comparing_all(texts, threshold)
    assert bases < len(set(found)) < len(texts) or threshold == 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS[:4]), max_size=8).map(" ".join), max_size=30), st.sampled_from([0.5, 0.8])
)
def test_clusters_of_short_texts_too(texts: list[str], threshold: float) -> None:
    assert clusters(texts, threshold) == by_comparing_all(texts, threshold)


def test_a_crowd_of_near_duplicates_is_one_cluster() -> None:
    bases = [" ".join(random.Random(seed).choices(WORDS, k=60)) for seed in range(2)]
    texts = [f"{bases[i % 2]} end{i}" for i in range(10 * FEW)]
    assert clusters(texts, 0.9) == [0, 1] * (5 * FEW)


def test_texts_kept_apart_are_never_one_cluster() -> None:
    texts = ["the very same words"] * 4
    assert clusters(texts, 0.8, apart=["a", "b", "a", "b"]) == [0, 1, 0, 1]
    crowd = variations(random.Random(5), 1, 4 * FEW)
    kinds = [str(i % 2) for i in range(len(crowd))]
    assert {kinds[leader] == kinds[i] for i, leader in enumerate(clusters(crowd, 0.5, apart=kinds))} == {True}


@pytest.mark.parametrize("copies", [5, 3 * FEW])
def test_near_pairs_are_all_those_across_and_none_below_the_threshold(copies: int) -> None:
    texts = variations(random.Random(copies), 300 // copies, copies)
    ours, theirs = texts[:40], texts[40:]
    found = dict(near_pairs(ours, theirs, 0.8))
    assert set(found) == {i for i, text in enumerate(ours) if any(jaccard(text, other) >= 0.8 for other in theirs)}
    assert all(jaccard(ours[i], theirs[j]) >= 0.8 for i, j in found.items())
    assert 0 < len(found) < len(ours) or copies > FEW


def test_case_spacing_and_punctuation_make_no_difference() -> None:
    assert clusters(["Where is my card?", "where  is my CARD", "where is your card"], 0.8) == [0, 0, 2]
    assert clusters(["???", "!!!", "???"], 0.8) == [0, 1, 0]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    texts = ["我想知道我的信用卡什么时候能够寄到我家里来", "我想知道我的信用卡什么时候能够寄到我家里去", "今天天气很好"]
    assert clusters(texts, 0.8) == [0, 0, 2]


@given(st.lists(st.text(), max_size=20))
def test_words_hash_as_they_are_folded(texts: list[str]) -> None:
    words, offsets = minhash.hash_words(texts)
    hashes = [tuple(words[offsets[i] : offsets[i + 1]].tolist()) for i in range(len(texts))]
    folded = [fold_to_tokens(text) for text in texts]
    assert [len(row) for row in hashes] == [text.count(" ") + 1 for text in folded]
    for one, other in combinations(range(len(texts)), 2):
        assert (hashes[one] == hashes[other]) == (folded[one] == folded[other])


def test_the_planted_pairs_of_a_real_corpus_are_found_and_no_other(shared: Path) -> None:
    folder = shared / "datasets" / "plagiarism_near_dup"
    lines = (folder / "articles_100.train").read_text("utf8").splitlines()
    names, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    truth = {frozenset(line.split()) for line in (folder / "articles_100.truth").read_text("utf8").splitlines()}
    found = {frozenset((names[i], names[leader])) for i, leader in enumerate(clusters(texts, 0.8)) if i != leader}
    assert found == truth


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000, "数" * 1_000_000, "a b " * 250_000 + "end"])
def test_a_text_of_a_million_characters(text: str) -> None:
    assert clusters([text, "short", text + " and what comes after", "Short"], 0.8) == [0, 1, 0, 1]


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=12), st.integers(1, 4))
@settings(deadline=None)
def test_what_more_rows_than_the_limit_have_is_dropped(rows: list[list[int]], limit: int) -> None:
    spread = 0x9E3779B97F4A7C15  # to hashes whose first bits differ too
    hashes = np.array([value * spread % 2**64 for row in rows for value in row], np.uint64)
    offsets = np.cumsum([0, *map(len, rows)])
    common = {value for value in range(7) if sum(value in row for row in rows) > limit}
    expected = [[value for value in row if value not in common] or row for row in rows]
    with patch.object(minhash, "CHUNK_WORDS", 5), patch.object(minhash, "COUNTED_BITS", 2):
        remaining, remaining_offsets = minhash.drop_common(hashes, offsets, limit)
    assert remaining_offsets.tolist() == [0, *accumulate(map(len, expected))]
    assert remaining.tolist() == [value * spread % 2**64 for row in expected for value in row]


def test_words_hashed_piece_by_piece_have_the_same_shingles_and_digests() -> None:
    texts = [" ".join(WORDS[i : i + 1 + i % 7]) for i in range(12)]
    words, offsets = minhash.hash_words(texts)
    rows = np.array([11, 0, 5, 5])
    shingles, digests = minhash.hash_shingles(words, offsets, rows, 3), minhash.digest_texts(words, offsets)
    with patch.object(minhash, "CHUNK_WORDS", 4), patch.object(minhash, "CHUNK_BYTES", 16):
        assert all(map(np.array_equal, minhash.hash_words(texts), (words, offsets)))
        assert all(map(np.array_equal, minhash.hash_shingles(words, offsets, rows, 3), shingles))
        assert np.array_equal(minhash.digest_texts(words, offsets), digests)


def test_signatures_agree_as_often_as_the_sets_are_alike() -> None:
    rng = random.Random(7)
    for common, alone in ((10, 5), (60, 10), (300, 100)):
        estimates = []
        for _ in range(40):
            words = [f"w{rng.getrandbits(60)}" for _ in range(common + 2 * alone)]
            texts = [" ".join(words[: common + alone]), " ".join(words[:common] + words[common + alone :])]
            word_hashes, offsets = minhash.hash_words(texts)
            hashes, offsets = minhash.hash_shingles(word_hashes, offsets, np.arange(len(texts)), 1)
            signed = minhash.compute_signatures(hashes, offsets, 128)
            estimates.append(float((signed[0] == signed[1]).mean()))
        expected = common / (common + 2 * alone)
        spread = (expected * (1 - expected) / 128 / 40) ** 0.5
        assert sum(estimates) / 40 == pytest.approx(expected, abs=4 * spread)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("num_perm", [64, 128, 256])
def test_bands_miss_no_more_than_is_promised(threshold: float, num_perm: int) -> None:
    width = minhash.rows_per_band(threshold, num_perm)
    assert minhash.miss_probability(threshold, width, num_perm // width) <= minhash.MISSED
    wider = minhash.miss_probability(threshold, width + 1, num_perm // (width + 1))
    assert wider > minhash.MISSED or width == num_perm
