"""The tests of drift against known answers: by hand, and by the libraries that do the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hone.drift.compare import (
    Finding,
    compare_embeddings,
    compare_missing,
    compare_numbers,
    compare_shares,
    compare_vocabulary,
    compute_p_value,
    correct_p_values,
    draw_arrangements,
)


def finding(p: float) -> Finding:
    return Finding("a", "b", 0.0, p, 1, 1)


def test_numbers_give_the_largest_distance_of_the_distribution_functions() -> None:
    found = compare_numbers("length", [1, 2, 3, 4], [3, 4, 5, 6], "characters")
    assert found.statistic == 0.5  # at 2: half of the first, none of the second
    assert found.note == "median 2.5 characters then, 4.5 now"
    apart = compare_numbers("length", list(range(100)), list(range(200, 300)), "characters")
    assert (apart.statistic, apart.p < 1e-9) == (1.0, True)


def test_shares_are_compared_by_chi_square() -> None:
    found = compare_shares("language", ["en"] * 60 + ["de"] * 40, ["en"] * 40 + ["de"] * 60)
    # (60-50)^2/50 in each of four cells is 8, with one degree of freedom p = 0.004678, and V = sqrt(8/200)
    assert found.p == pytest.approx(0.0046777, rel=1e-4)
    assert found.statistic == pytest.approx(0.2)
    assert found.note == "en 60.0% -> 40.0%, de 40.0% -> 60.0%"


def test_rare_names_are_gathered_and_a_single_name_is_no_difference() -> None:
    rare = [f"language {i}" for i in range(30)]
    found = compare_shares("language", ["en"] * 100, ["en"] * 70 + rare)
    assert "(other) 0.0% -> 30.0%" in found.note
    assert found.p < 1e-6
    assert compare_shares("language", ["en"] * 50, ["en"] * 80).p == 1.0
    # Two rows of another language in one sample: too few to be tested, and no error.
    assert compare_shares("language", ["en"] * 50, ["en"] * 48 + ["de"] * 2).p == 1.0


def test_missing_values_are_compared_by_fishers_exact_test() -> None:
    # The lady tasting tea: 3 of 4 right, two-sided p = 34/70.
    assert compare_missing("missing text", (3, 4), (1, 4)).p == pytest.approx(34 / 70)
    found = compare_missing("missing text", (0, 1000), (50, 1000))
    assert (found.note, found.p < 1e-9) == ("0.0% then, 5.0% now", True)


def test_the_effect_of_each_test_is_the_share_of_recent_rows_that_differs() -> None:
    """30 of 100 recent rows are of another kind: long, in German, without a text, about refunds."""
    generator = np.random.default_rng(4)
    length = compare_numbers("length", [10.0] * 100, [10.0] * 70 + [90.0] * 30, "characters")
    language = compare_shares("language", ["en"] * 100, ["en"] * 70 + ["de"] * 30)
    missing = compare_missing("missing text", (0, 100), (30, 100))
    usual = [f"card {word}" for word in generator.choice(["lost", "late"], 100)]
    vocabulary = compare_vocabulary(usual, [*usual[:70], *["refund please"] * 30], 99, 1)
    assert [finding.effect for finding in (length, language, missing, vocabulary)] == pytest.approx([0.3] * 4)
    # Fewer missing values are a change too.
    assert compare_missing("missing text", (30, 100), (0, 100)).effect == pytest.approx(0.3)
    # The classifier's: an AUC of 0.65 where 30% of the recent rows are recognized, and all others are alike.
    alike = generator.normal(size=(2000, 2))
    alike[1700:] += 40
    classifier = compare_embeddings(alike[:1000], alike[1000:], 19, 1)
    assert classifier.effect == pytest.approx(0.3, abs=0.07)
    assert classifier.effect == pytest.approx(2 * classifier.statistic - 1)


def test_without_a_difference_there_is_no_effect() -> None:
    texts, numbers = ["card lost", "card late"] * 50, [float(number) for number in range(100)]
    vectors = np.random.default_rng(3).normal(size=(400, 3))
    findings = [
        compare_numbers("length", numbers, numbers, ""),
        compare_shares("language", ["en"] * 60 + ["de"] * 40, ["en"] * 60 + ["de"] * 40),
        compare_missing("missing text", (5, 100), (5, 100)),
        compare_vocabulary(texts, texts, 99, 1),
    ]
    assert [finding.effect for finding in findings] == [0, 0, 0, 0]
    assert compare_embeddings(vectors[:200], vectors[200:], 99, 1).effect < 0.1


def test_vocabulary_is_the_jensen_shannon_distance_of_the_words() -> None:
    same = compare_vocabulary(["red green"] * 30, ["green red"] * 30, 199, 1)
    assert (same.statistic, same.p) == (0.0, 1.0)
    apart = compare_vocabulary(["red green"] * 30, ["blue black"] * 30, 199, 1)
    assert apart.statistic == pytest.approx(1.0)
    assert apart.p == 1 / 200
    # Half of the words are shared: 1 - H(1/2, 1/4, 1/4)... the divergence is 1/2 bit, the distance its root.
    half = compare_vocabulary(["red green"] * 30, ["red blue"] * 30, 199, 1)
    assert half.statistic == pytest.approx(np.sqrt(0.5))
    assert "blue 0.0% -> 100.0%" in half.note


def test_scripts_without_spaces_have_words_too_and_texts_without_words_do_not_fail() -> None:
    found = compare_vocabulary(["卡片丢失"] * 30, ["卡片付款"] * 30, 199, 1)
    assert 0 < found.statistic < 1
    assert compare_vocabulary([""] * 30, [""] * 30, 199, 1).p == 1.0


def test_a_word_said_often_in_one_row_is_one_row() -> None:
    draw = np.random.default_rng(0)
    words = [f"word{i}" for i in range(50)]
    rows = [" ".join(draw.choice(words, 6)) for _ in range(400)]
    rows[0] = "spam " * 500
    assert compare_vocabulary(rows[:200], rows[200:], 199, 1).p > 0.05


def test_the_domain_classifier_is_scikit_learns_ridge_classifier() -> None:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import cross_val_score

    draw = np.random.default_rng(3)
    then, now = draw.normal(size=(120, 10)), draw.normal(0.3, 1, size=(100, 10))
    found = compare_embeddings(then, now, 199, 7)
    vectors, labels = np.concatenate([then, now]), np.repeat([0, 1], [120, 100])
    order = np.random.default_rng(8).permutation(220)
    folds = [(np.setdiff1d(order, held), held) for held in np.array_split(order, 5)]
    # Ours leaves its own folds' means where all rows' means are: the area differs by less than a rank or two.
    theirs = cross_val_score(RidgeClassifier(), vectors, labels, cv=folds, scoring="roc_auc")
    assert found.statistic == pytest.approx(theirs.mean(), abs=0.005)
    assert found.p == 1 / 200


def test_what_cannot_be_told_apart_has_an_area_of_a_half_and_more_dimensions_than_rows_do_not_help() -> None:
    draw = np.random.default_rng(4)
    for dimensions in (8, 400):
        same = compare_embeddings(draw.normal(size=(100, dimensions)), draw.normal(size=(100, dimensions)), 199, 5)
        assert 0.3 < same.statistic < 0.65
        assert same.p > 0.05
    apart = compare_embeddings(draw.normal(size=(100, 400)), draw.normal(1.0, 1, size=(100, 400)), 199, 5)
    assert apart.statistic > 0.99


def test_p_values_are_uniform_where_nothing_differs() -> None:
    draw = np.random.default_rng(5)
    p = [compare_embeddings(draw.normal(size=(40, 5)), draw.normal(size=(30, 5)), 199, seed).p for seed in range(200)]
    assert 0.02 <= np.mean(np.array(p) <= 0.1) <= 0.18  # 0.1 is expected, its standard error is 0.02
    assert min(p) >= 1 / 200


def test_the_true_arrangement_counts_among_those_drawn() -> None:
    drawn = draw_arrangements(3, 2, 50, 1)
    assert drawn.shape == (5, 51)
    assert drawn[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert Counter(drawn.sum(0).tolist()) == {2.0: 51}
    assert compute_p_value(np.array([5.0, 1, 2, 3])) == 0.25
    assert compute_p_value(np.array([1.0, 1, 2, 3])) == 1.0


def test_holms_correction_is_that_of_his_paper() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and none below the one before.
    found = correct_p_values([finding(p) for p in (0.03, 0.01, 0.04, 0.02)], 0.05)
    assert [round(one.adjusted, 10) for one in found] == [0.06, 0.04, 0.06, 0.06]
    assert [one.drifted for one in found] == [False, True, False, False]
    assert [one.adjusted for one in correct_p_values([finding(0.6), finding(0.9)], 0.05)] == [1.0, 1.0]
