from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.curation.dedup.near import near_pairs
from hone.curation.split import find_contaminated_rows, group_rows, normalize_splits, split_rows
from hone.errors import DataError
from hone.objectives.masked_lm import MaskedLM

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()


def random_texts(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def table_of(texts: Sequence[str], splits: Sequence[str] = ()) -> pa.Table:
    return pa.table({"text": list(texts), "split": list(splits or [""] * len(texts))})


def split_texts(
    texts: Sequence[str], labels: Sequence[str], *, valid: float, test: float, seed: int, threshold: float = 0.8
) -> list[str]:
    groups = group_rows(table_of(texts), MaskedLM(), threshold).leaders
    return split_rows(texts, labels, groups, valid=valid, test=test, seed=seed)


def shares(splits: list[str], labels: list[str]) -> dict[str, Counter[str]]:
    return {label: Counter(s for s, own in zip(splits, labels, strict=True) if own == label) for label in set(labels)}


def test_every_class_is_parted_by_the_shares() -> None:
    texts = random_texts(1000)
    labels = ["common"] * 900 + ["rare"] * 97 + ["least"] * 3
    found = shares(split_texts(texts, labels, valid=0.1, test=0.2, seed=17), labels)
    assert found["common"] == {"train": 630, "valid": 90, "test": 180}
    assert found["rare"] == {"train": 68, "valid": 10, "test": 19}
    assert found["least"] == {"train": 1, "valid": 1, "test": 1}


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_three_groups_are_enough_for_every_split_whatever_the_shares(share: float) -> None:
    labels = ["a"] * 3 + ["b"] * 40
    found = shares(split_texts(random_texts(43), labels, valid=0.1, test=share, seed=3), labels)
    assert all(set(found[label]) == {"train", "valid", "test"} for label in found)


def test_two_rows_of_a_class_are_for_training_and_testing() -> None:
    labels = ["a"] * 2 + ["b"] * 2
    found = shares(split_texts(random_texts(4), labels, valid=0.1, test=0.1, seed=3), labels)
    assert found == {"a": {"train": 1, "test": 1}, "b": {"train": 1, "test": 1}}


def test_a_class_of_near_duplicates_alone_is_for_training() -> None:
    texts = [*random_texts(20), *["one and the same text with some words"] * 10]
    found = shares(split_texts(texts, ["a"] * 20 + ["b"] * 10, valid=0.2, test=0.2, seed=3), ["a"] * 20 + ["b"] * 10)
    assert found["b"] == {"train": 10}


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    texts = random_texts(300)
    labels = [text.split()[0] for text in texts]

    def parted(order: list[int], seed: int) -> dict[str, str]:
        splits = split_texts([texts[i] for i in order], [labels[i] for i in order], valid=0.1, test=0.1, seed=seed)
        return {texts[i]: split for i, split in zip(order, splits, strict=True)}

    shuffled = random.Random(4).sample(range(300), 300)
    assert parted(list(range(300)), 17) == parted(shuffled, 17)
    assert parted(list(range(300)), 17) != parted(list(range(300)), 18)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(WORDS[:6]), min_size=1, max_size=9).map(" ".join), st.sampled_from("abc")),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.integers(0, 99),
)
def test_no_near_duplicates_in_two_splits(rows: list[tuple[str, str]], valid: float, seed: int) -> None:
    texts, labels = map(list, zip(*rows, strict=True))
    splits = split_texts(texts, labels, valid=valid, test=0.2, seed=seed, threshold=0.6)
    assert valid or "valid" not in splits
    parts = {name: [t for t, split in zip(texts, splits, strict=True) if split == name] for name in set(splits)}
    for name, part in parts.items():
        assert all(near_pairs(part, other, 0.6) == [] for key, other in parts.items() if key != name)


def test_contaminated_rows_are_those_of_the_earlier_split() -> None:
    long = "please tell me where in the world my new credit card has got to this week"
    texts = [long, "kept in training", long + " or next", "in valid", "IN  valid", "in test", "in test"]
    splits = ["train", "train", "test", "valid", "train", "test", "valid"]
    assert find_contaminated_rows(table_of(texts, splits), MaskedLM(), 0.8) == {
        0: ("nearly also in test", 2),
        4: ("also in valid", 3),
        6: ("also in test", 5),
    }


def test_a_row_like_a_validation_row_is_contaminated_even_if_that_one_is_too() -> None:
    words = random_texts(2)[0].split() + random_texts(2)[1].split()
    test, valid, train = words, [*words[:-1], "other"], ["another", *words[1:-1], "other"]
    texts = [" ".join(text) for text in (train, valid, test)]
    assert find_contaminated_rows(table_of(texts, ["train", "valid", "test"]), MaskedLM(), 0.86) == {
        0: ("nearly also in valid", 1),
        1: ("nearly also in test", 2),
    }


def test_splits_go_by_their_usual_names() -> None:
    assert normalize_splits(["Train", "validation", "dev", "test", ""]) == ["train", "valid", "valid", "test", "train"]
    assert normalize_splits(["train", "train"]) == ["", ""]
    assert normalize_splits(["", ""]) == ["", ""]


def test_splits_that_are_none_are_an_error() -> None:
    with pytest.raises(DataError, match="unknown splits: blind, gold"):
        normalize_splits(["train", "gold", "blind", "test"])
    with pytest.raises(DataError, match="none for training"):
        normalize_splits(["valid", "test"])
