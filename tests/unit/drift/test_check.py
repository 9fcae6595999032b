"""The check as a whole: what it decides, and of which rows."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from hone.drift.check import Settings, compute_verdict
from hone.drift.monitor import select_distinct
from hone.registry.reference import Sample

EMBEDDED = ["domain classifier", "outliers"]
SETTINGS = Settings(permutations=199)
WORDS = {"old": [f"card{i}" for i in range(40)], "new": [f"storm{i}" for i in range(40)]}


def sample(rows: int, seed: int, kind: str = "old", lacking: int = 0) -> Sample:
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS[kind], k=draw.randint(3, 9))) for _ in range(rows)]
    vectors = np.random.default_rng(seed).normal(np.eye(6)[int(kind == "new")], 0.3, size=(rows, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    said = [draw.choice(["a", "b"]) for _ in range(rows)]
    return Sample(texts, list(map(len, texts)), ["en"] * rows, {"text": (lacking, rows)}, vectors, {"label": said})


def test_rows_of_the_same_kind_have_not_drifted_and_each_test_is_told() -> None:
    verdict = compute_verdict(sample(300, 1), sample(300, 2), sample(300, 3), SETTINGS)
    assert verdict.decision == "no drift"
    names = [found.name for found in verdict.findings]
    assert names == [
        "length",
        "vocabulary",
        "language",
        "missing text",
        "predicted label",
        "domain classifier",
        "outliers",
    ]
    assert all(found.adjusted >= found.p for found in verdict.findings)


def test_each_kind_of_drift_is_named() -> None:
    then, held_out, same = sample(300, 1), sample(300, 2), sample(300, 3)
    other = sample(300, 4, "new")
    assert {"vocabulary", *EMBEDDED} <= set(compute_verdict(then, held_out, other, SETTINGS).drifted)

    def changed(**what: object) -> list[str]:
        return compute_verdict(then, held_out, replace(same, **what), SETTINGS).drifted

    assert changed(lengths=[length * 3 for length in same.lengths]) == ["length"]
    assert changed(languages=["en"] * 250 + ["de"] * 50) == ["language"]
    assert changed(missing={"text": (30, 300)}) == ["missing text"]
    assert changed(predictions={"label": ["a"] * 300}) == ["predicted label"]
    assert changed(embeddings=other.embeddings) == EMBEDDED


def test_predictions_are_compared_with_held_out_rows_and_numbers_as_numbers() -> None:
    then, held_out, same = sample(300, 1), sample(300, 2), sample(300, 3)
    # What it says of rows it learned from is another thing, and is not looked at.
    learned = replace(then, predictions={"label": ["a"] * 300})
    assert compute_verdict(learned, held_out, same, SETTINGS).decision == "no drift"
    values = {"value": [float(at) for at in range(300)]}
    now = replace(same, predictions={"value": [float(at) + 200 for at in range(300)]})
    assert compute_verdict(then, replace(held_out, predictions=values), now, SETTINGS).drifted == ["predicted value"]


def test_an_encoder_that_learned_the_rows_is_asked_about_held_out_ones() -> None:
    then, held_out, same = sample(300, 1), sample(300, 2), sample(300, 3)
    verdict = compute_verdict(
        replace(then, embeddings=None), replace(held_out, embeddings=held_out.embeddings), same, SETTINGS
    )
    assert [found.reference for found in verdict.findings if found.name == "domain classifier"] == [300]


def test_too_few_rows_decide_nothing() -> None:
    verdict = compute_verdict(sample(300, 1), sample(300, 2), sample(99, 4, "new"), SETTINGS)
    assert (verdict.decision, list(verdict.findings)) == ("too few rows", [])
    # Few held-out rows: what needs them is left out, the rest is tested.
    verdict = compute_verdict(sample(300, 1), sample(50, 2), sample(300, 3), SETTINGS)
    assert "predicted label" not in [found.name for found in verdict.findings]


def test_a_row_asked_again_and_again_is_one_row() -> None:
    then = [f"text {number}" for number in range(1000)]
    now = ["retry"] * 900 + [f"new {number}" for number in range(50)]
    rows_then, rows_now = select_distinct(then, now)
    assert [now[position] for position in rows_now] == ["retry", *(f"new {number}" for number in range(50))]
    assert rows_then == list(range(950))  # a whole part
    assert select_distinct(then, ["a", "b", " ", ""])[1] == [0, 1]
    assert len(select_distinct(then, ["a", "b"])[0]) == 1000


def test_a_repeated_text_counts_once_in_each_part_and_takes_no_rows_of_the_reference() -> None:
    then = ["hello" if number % 10 == 0 else f"text {number}" for number in range(1000)]
    now = ["hello", "hello", *(f"new {number}" for number in range(118))]
    rows_then, rows_now = select_distinct(then, now)
    assert len(rows_now) == 119
    assert [then[position] for position in rows_then].count("hello") == 8  # 8 parts of 120 rows
    assert len(rows_then) == 960 - 96 + 8
    assert select_distinct(then, [])[1] == []


def test_texts_that_repeat_in_the_same_way_then_and_now_are_no_drift() -> None:
    """Half of all rows are one of ten questions: of a larger sample a smaller share is distinct."""
    alarms = 0
    for seed in range(20):
        draw = random.Random(seed)

        def asked(rows: int, draw: random.Random = draw) -> list[str]:
            common = [f"hi {at}" for at in range(10)]
            return [
                draw.choice(common) if draw.random() < 0.5 else " ".join(draw.choices(WORDS["old"], k=6))
                for _ in range(rows)
            ]

        then, now = asked(1000), asked(300)
        kept_then, kept_now = select_distinct(then, now)
        samples = [
            Sample([texts[at] for at in kept], [len(texts[at]) for at in kept], ["en"] * len(kept))
            for texts, kept in ((then, kept_then), (now, kept_now))
        ]
        alarms += compute_verdict(samples[0], samples[0], samples[1], SETTINGS).decision == "drift"
    assert alarms <= 3
