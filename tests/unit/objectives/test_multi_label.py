from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    hamming_loss,
    precision_recall_curve,
    precision_recall_fscore_support,
)
from sklearn.neighbors import KNeighborsClassifier

from hone.curation.split import split_rows
from hone.errors import DataError
from hone.evaluation.judging import metrics
from hone.methods.lora import Lora
from hone.objectives.multi_label import MIN_ROWS, MultiLabelClassification, find_threshold
from hone.objectives.shared.tokenizer import load_tokenizer
from tests.tiny_bases import tiny_bert, tiny_llama

OBJECTIVE = MultiLabelClassification()
LABELS = ["anger", "joy", "love", "optimism"]
TARGETS = {"labels": LABELS, "shares": [0.5, 0.25, 0.2, 0.05]}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def rows(*sets: list[str]) -> pa.Table:
    """Rows as ingest writes them."""
    return pa.table(
        {
            "id": [f"a.csv:{n}" for n in range(len(sets))],
            "text": [f"card {n} lost" for n in range(len(sets))],
            "labels": [json.dumps(names) for names in sets],
        }
    )


def encoded(marked: np.ndarray) -> pa.Table:
    labels = pa.array(marked.astype(np.int8).tolist(), pa.list_(pa.int8()))
    return pa.table(
        {"labels": labels, "unseen": pa.array([False] * len(marked)), "lost": np.zeros(len(marked), np.int32)}
    )


def figures(marked: np.ndarray, said: np.ndarray) -> dict[str, float]:
    outcome = OBJECTIVE.compute_outcome(encoded(marked), {"scores": said.astype(np.float32)}, TARGETS)
    return {
        name: float(of[0])
        for name, of in OBJECTIVE.compute_metrics(outcome.statistics.sum(0)[:, None], TARGETS).items()
    }


class TestForms:
    """What a source may say, and what it becomes."""

    @pytest.mark.parametrize(
        ("value", "names"),
        [
            (["joy", "anger"], ["anger", "joy"]),
            ([], []),
            (["joy", "joy", " joy "], ["joy"]),
            (["7", 12], ["12", "7"]),
            ('["love", "joy, calm"]', ["joy, calm", "love"]),
            ("[3, 1]", ["1", "3"]),
            ("['joy', \"won't\"]", ["joy", "won't"]),
            ("", []),
            ("  ", []),
        ],
    )
    def test_lists(self, value: Any, names: list[str]) -> None:
        assert OBJECTIVE.normalize_row({"text": "a", "labels": value})["labels"] == names

    @pytest.mark.parametrize(
        ("value", "names"), [("joy; anger;", ["anger", "joy"]), ("joy", ["joy"]), ("", []), (["a;b"], ["a;b"])]
    )
    def test_texts_with_a_separator(self, value: Any, names: list[str]) -> None:
        assert MultiLabelClassification(separator=";").normalize_row({"labels": value})["labels"] == names

    def test_columns_of_0_and_1(self) -> None:
        objective = MultiLabelClassification(label_columns=("toxic", "threat", "insult"))
        values = {"text": "a", "toxic": "1", "threat": 0, "insult": True, "other": "1"}
        assert objective.normalize_row(values)["labels"] == ["insult", "toxic"]

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("joy", "labels is no list: 'joy'"),
            ("['a' 'b']", "labels is no list in JSON"),
            ("[a, b]", "labels is no list in JSON"),
            ('["a",', "labels is no list in JSON"),
            (7, "labels is neither a list nor a text: 7"),
            ({"a": 1}, "labels is neither a list nor a text"),
            (["a", None], "labels holds something that is no name: None"),
            (["a", ""], "labels holds something that is no name: ''"),
            ([["a"]], "labels holds something that is no name"),
            ([True], "labels holds something that is no name: True"),
        ],
    )
    def test_what_is_no_list_is_refused(self, value: Any, reason: str) -> None:
        with pytest.raises(ValueError, match=reason.replace("[", r"\[")):
            OBJECTIVE.normalize_row({"labels": value})

    @pytest.mark.parametrize(
        ("values", "reason"),
        [({"toxic": "2"}, "toxic is neither 0 nor 1: '2'"), ({"toxic": None}, "toxic is neither 0"), ({}, "no column")],
    )
    def test_columns_that_are_no_bits_are_refused(self, values: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            MultiLabelClassification(label_columns=("toxic",)).normalize_row(values)

    def test_null_is_not_the_same_as_no_label(self) -> None:
        assert OBJECTIVE.normalize_row({"text": "a", "labels": None})["labels"] is None  # which ingest refuses
        assert "labels" not in OBJECTIVE.normalize_row({"text": "a"})

    def test_labels_that_do_not_count_are_left_out(self) -> None:
        objective = MultiLabelClassification(labels=("joy", "love"))
        assert objective.normalize_row({"labels": ["anger", "joy"]})["labels"] == ["joy"]


def test_it_has_no_class() -> None:
    assert MultiLabelClassification.label == ""


def test_targets_are_the_names_and_their_shares() -> None:
    assert OBJECTIVE.build_targets(rows(["joy", "anger"], [], ["joy"], ["joy"])) == {
        "labels": ["anger", "joy"],
        "shares": [0.25, 0.75],
    }
    with pytest.raises(DataError, match="the training split, column labels: no row has a label"):
        OBJECTIVE.build_targets(rows([], []))


def test_rare_labels_stand_in_every_split() -> None:
    draw = np.random.default_rng(1)
    common, rare = np.array(["common", "usual"]), [f"rare {n}" for n in range(8)]
    sets = [list(common[draw.random(2) < 0.6]) for _ in range(400)]
    for place, name in enumerate(rare):
        for row in range(place * 5, place * 5 + 5):  # each rare one beside common ones in five rows
            sets[row].append(name)
    table = rows(*sets)
    parted = split_rows(
        [f"{n} {' '.join(map(str, draw.integers(0, 10**6, 8)))}" for n in range(400)],
        OBJECTIVE.strata(table),
        range(400),
        valid=0.2,
        test=0.2,
        seed=3,
    )
    for name in rare:
        assert {split for split, names in zip(parted, sets, strict=True) if name in names} == {"train", "valid", "test"}
    sizes = {split: parted.count(split) for split in set(parted)}
    assert sizes["test"] == pytest.approx(80, abs=8)
    assert sizes["valid"] == pytest.approx(80, abs=8)


def test_encoding_marks_the_labels(bert: Path) -> None:
    table = OBJECTIVE.encode(rows(["love"], [], ["anger", "optimism"]), load_tokenizer(bert), 8, TARGETS)
    assert table["labels"].to_pylist() == [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    batch = OBJECTIVE.collate(table.to_pydict(), 0)
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    asked = OBJECTIVE.encode(rows([]).select(["id", "text"]), load_tokenizer(bert), 8, TARGETS, labelled=False)
    assert asked.column_names == ["id", "input_ids", "lost"]


def test_a_label_that_no_training_row_has_is_an_error(bert: Path) -> None:
    table = rows(["love"], ["fear", "love"])
    assert OBJECTIVE.list_unseen_labels(table, TARGETS) == ["fear"]
    assert OBJECTIVE.list_unseen_labels(rows(["fear", "love", "rage"], ["fear"]), TARGETS) == ["fear, rage", "fear"]
    tokens = OBJECTIVE.encode(table, load_tokenizer(bert), 8, TARGETS)
    marked = np.array([[name == "love" for name in LABELS]] * 2, np.float32)
    outcome = OBJECTIVE.compute_outcome(tokens, {"scores": marked}, TARGETS)
    assert outcome.references[1] == "love, (not in training)"
    sums = outcome.statistics.sum(0)[:, None]
    metrics = OBJECTIVE.compute_metrics(sums, TARGETS)
    assert metrics["subset_accuracy"] == 0.5
    assert metrics["micro_f1"] == pytest.approx(4 / 5)
    assert metrics["hamming_loss"] == pytest.approx(1 / 8)
    assert OBJECTIVE.compute_group_metrics(sums, TARGETS)["(not in training)"]["support"] == [1]


class TestLoss:
    def batch(self, bert: Path) -> Any:
        return OBJECTIVE.collate({"input_ids": [[2, 5, 3], [2, 3]], "labels": [[1, 0, 0, 1], [0, 0, 0, 0]]}, 0)

    def test_it_is_what_transformers_has_for_such_models(self, bert: Path) -> None:
        model, batch = OBJECTIVE.load_model(bert, TARGETS).eval(), self.batch(bert)
        assert model.config.problem_type == "multi_label_classification"
        assert model.config.id2label == dict(enumerate(LABELS))
        loss, count = OBJECTIVE.compute_loss(model, batch)
        assert count == 8
        assert loss.item() / count == pytest.approx(model(**batch).loss.item(), rel=1e-5)

    def test_balanced_positives_weigh_as_much_as_negatives(self, bert: Path) -> None:
        objective = MultiLabelClassification(positive_weight="balanced")
        model, batch = objective.load_model(bert, TARGETS).eval(), self.batch(bert)
        scores = torch.from_numpy(objective.predict_batch(model, batch)["scores"])
        weights = torch.tensor([(1 - share) / share for share in TARGETS["shares"]])  # type: ignore[attr-defined]
        labels = batch["labels"]
        expected = -(weights * labels * scores.log() + (1 - labels) * (1 - scores).log()).sum()
        assert objective.compute_loss(model, batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)
        # Weights move with the model and are found behind an adapter, and are no part of what is saved.
        adapted = Lora(rank=2).prepare(model).eval()
        assert objective.compute_loss(adapted, batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)
        assert "positive_weight" not in model.state_dict()


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_padding_changes_no_score(base: str, request: pytest.FixtureRequest) -> None:
    model = OBJECTIVE.load_model(request.getfixturevalue(base), TARGETS).eval()
    pad = model.config.pad_token_id
    together = OBJECTIVE.predict_batch(model, OBJECTIVE.collate({"input_ids": [[5, 6], [5, 6, 7, 8, 9]]}, pad))[
        "scores"
    ]
    alone = OBJECTIVE.predict_batch(model, OBJECTIVE.collate({"input_ids": [[5, 6]]}, pad))["scores"]
    assert np.allclose(together[0], alone[0], atol=1e-6)
    assert ((together > 0) & (together < 1)).all()


class TestFigures:
    @pytest.mark.parametrize("seed", range(5))
    def test_they_are_scikit_learns(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        marked, said = draw.random((60, 4)) < (0.5, 0.2, 0.3, 0.1), draw.random((60, 4)) < 0.3
        found = figures(marked, said)
        assert found["micro_f1"] == pytest.approx(f1_score(marked, said, average="micro"))
        assert found["macro_f1"] == pytest.approx(f1_score(marked, said, average="macro"))
        assert found["subset_accuracy"] == pytest.approx(accuracy_score(marked, said))
        assert found["hamming_loss"] == pytest.approx(hamming_loss(marked, said))

    def test_a_label_that_is_nowhere_does_not_count_in_the_mean(self) -> None:
        marked = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
        said = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
        found = figures(marked, said)
        assert found["macro_f1"] == pytest.approx(f1_score(marked, said, average="macro", zero_division=np.nan))
        assert found["macro_f1"] > f1_score(marked, said, average="macro", zero_division=0)
        assert found["subset_accuracy"] == pytest.approx(2 / 3)

    def test_rows_without_labels_that_are_given_none_are_right(self) -> None:
        none = np.zeros((3, 4), bool)
        found = figures(none, none)
        assert (found["subset_accuracy"], found["hamming_loss"]) == (1, 0)
        assert np.isnan([found["micro_f1"], found["macro_f1"]]).all()

    def test_groups_are_scikit_learns(self) -> None:
        draw = np.random.default_rng(9)
        marked, said = draw.random((50, 4)) < 0.4, draw.random((50, 4)) < 0.4
        outcome = OBJECTIVE.compute_outcome(encoded(marked), {"scores": said.astype(float)}, TARGETS)
        groups = OBJECTIVE.compute_group_metrics(outcome.statistics.sum(0)[:, None], TARGETS)
        expected = precision_recall_fscore_support(marked, said, average=None)
        for place, label in enumerate(LABELS):
            found = [groups[label][name][0] for name in ("precision", "recall", "f1", "support")]
            assert found == pytest.approx([of[place] for of in expected])

    def test_on_resamples_they_are_those_of_the_drawn_rows(self) -> None:
        draw = np.random.default_rng(2)
        marked, said = draw.random((30, 4)) < 0.4, draw.random((30, 4)) < 0.4
        draws = metrics.resample(30, 5, seed=1)
        statistics = OBJECTIVE.compute_outcome(encoded(marked), {"scores": said.astype(float)}, TARGETS).statistics
        found = OBJECTIVE.compute_metrics(metrics.totals(statistics, draws), TARGETS)
        for column in range(6):
            at = np.repeat(np.arange(30), draws[:, column])
            assert found["micro_f1"][column] == pytest.approx(f1_score(marked[at], said[at], average="micro"))
            assert found["subset_accuracy"][column] == pytest.approx(accuracy_score(marked[at], said[at]))

    def test_errors_and_answers_are_for_people(self) -> None:
        marked = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
        scores = np.array([[0.9, 0.1, 0.8, 0.2], [0.1, 0.2, 0.3, 0.6], [0.9, 0.1, 0.9, 0.1]])
        outcome = OBJECTIVE.compute_outcome(encoded(marked), {"scores": scores}, TARGETS)
        assert list(outcome.predictions) == ["anger, love", "optimism", "anger, love"]
        assert list(outcome.references) == ["anger, love", "(none)", "joy"]
        assert outcome.errors[0] == 0 < outcome.errors[1] < outcome.errors[2]


class TestThresholds:
    @pytest.mark.parametrize("seed", range(5))
    def test_no_threshold_has_a_better_f1(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        there = draw.random(80) < 0.25
        scores = np.round(np.clip(draw.normal(0.3 + 0.3 * there, 0.2), 0, 1), 2)  # with ties
        found = find_threshold(there, scores, 0.5)
        precision, recall, _ = precision_recall_curve(there, scores)
        best = (2 * precision * recall / (precision + recall + 1e-300)).max()
        assert f1_score(there, scores >= found) == pytest.approx(best)
        assert not np.isin(found, scores) or found == 0

    def test_of_equals_the_one_next_to_the_default(self) -> None:
        there = np.array([True] * 6 + [False] * 6)
        scores = np.array([0.9] * 6 + [0.2] * 6)
        assert find_threshold(there, scores, 0.5) == pytest.approx(0.55)

    def test_a_rare_label_keeps_the_default(self) -> None:
        there = np.arange(50) < MIN_ROWS - 1
        assert find_threshold(there, 1.0 * there, 0.35) == 0.35
        there = np.arange(50) < MIN_ROWS
        assert find_threshold(there, 0.2 * there, 0.35) == pytest.approx(0.1)

    def test_what_was_tuned_decides_outcome_and_answers_alike(self) -> None:
        draw = np.random.default_rng(4)
        marked = draw.random((200, 4)) < 0.3
        scores = np.clip(draw.normal(0.1 + 0.1 * marked, 0.05), 0, 1).astype(np.float32)  # all far below 0.5
        tuned = OBJECTIVE.tune_targets(encoded(marked), {"scores": scores}, TARGETS)
        before, after = (OBJECTIVE.compute_outcome(encoded(marked), {"scores": scores}, of) for of in (TARGETS, tuned))
        assert set(before.predictions) == {"(none)"}
        found = OBJECTIVE.compute_metrics(after.statistics.sum(0)[:, None], tuned)
        assert found["micro_f1"][0] > 0.6
        told = OBJECTIVE.build_answers(encoded(marked), {"scores": scores}, json.loads(json.dumps(tuned)), [])
        assert [", ".join(sorted(one["labels"])) or "(none)" for one in told] == after.predictions
        for one, row in zip(told, scores, strict=True):
            assert one["scores"] == sorted(one["scores"], reverse=True)
            assert one["all_scores"] == pytest.approx(dict(zip(LABELS, row.tolist(), strict=True)))

    def test_fixed_ones_are_left_alone(self) -> None:
        marked = np.ones((20, 4), bool)
        fixed = replace(OBJECTIVE, thresholds="fixed", threshold=0.2)
        assert fixed.tune_targets(encoded(marked), {"scores": marked * 0.1}, TARGETS) == TARGETS
        [told] = fixed.build_answers(encoded(marked[:1]), {"scores": np.array([[0.1, 0.2, 0.3, 0.0]])}, TARGETS, [])
        assert told["labels"] == ["love", "joy"]


class TestRivals:
    def test_constant_ones_say_what_the_training_rows_say_most(self) -> None:
        sets = [[0, 0, 1, 0]] * 3 + [[1, 1, 0, 0]] * 2 + [[1, 0, 0, 0]] * 2
        test = encoded(np.zeros((2, 4)))
        found = OBJECTIVE.baseline_predictions(encoded(np.array(sets)), test, TARGETS, test)
        assert np.asarray(found["majority_of_each_label"]["scores"]).tolist() == [[1, 0, 0, 0]] * 2
        assert np.asarray(found["most_frequent_set"]["scores"]).tolist() == [[0, 0, 1, 0]] * 2

    def test_neighbours_vote_as_scikit_learns_classifier(self) -> None:
        draw = np.random.default_rng(6)
        train, queries = draw.normal(size=(40, 3)), draw.normal(size=(10, 3))
        marked = draw.random((40, 4)) < 0.4
        classifier = KNeighborsClassifier(5, weights="distance").fit(train, marked)
        distances, at = classifier.kneighbors(queries)
        found = OBJECTIVE.neighbour_predictions(1 / distances, at, encoded(marked), TARGETS)["scores"]
        expected = np.stack([each[:, 1] for each in classifier.predict_proba(queries)], axis=1)
        assert np.allclose(found, expected, atol=1e-6)


def test_a_real_text_learns_its_labels(shared: Path) -> None:
    """Tweets of emotions, marked with what their hashtags and signs say: several things for one text."""
    texts = (shared / "datasets/tweet_eval_emotion/val_text.txt").read_text("utf8").splitlines()
    marks = {"user": "@user", "tag": "#", "shout": "!", "question": "?"}
    values = [{"text": text, "labels": [name for name, mark in marks.items() if mark in text]} for text in texts]
    table = pa.table(
        {
            "id": [str(n) for n in range(len(texts))],
            "text": texts,
            "labels": [json.dumps(OBJECTIVE.normalize_row(row)["labels"]) for row in values],
        }
    )
    targets = OBJECTIVE.build_targets(table)
    assert targets["labels"] == ["question", "shout", "tag", "user"]
    base = shared / "models" / "stories260K"
    tokens = OBJECTIVE.encode(table, load_tokenizer(base), 64, targets).slice(0, 64)
    torch.manual_seed(0)
    model = OBJECTIVE.load_model(base, targets)
    batch = OBJECTIVE.collate(tokens.to_pydict(), model.config.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(25):
        loss, count = OBJECTIVE.compute_loss(model, batch)
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    raw = OBJECTIVE.predict_batch(model.eval(), batch)
    tuned = OBJECTIVE.tune_targets(tokens, raw, targets)
    outcome = OBJECTIVE.compute_outcome(tokens, raw, tuned)
    rivals = OBJECTIVE.baseline_predictions(tokens, tokens, targets, table)
    best = max(
        OBJECTIVE.compute_metrics(OBJECTIVE.compute_outcome(tokens, said, targets).statistics.sum(0)[:, None], targets)[
            "micro_f1"
        ][0]
        for said in rivals.values()
    )
    assert OBJECTIVE.compute_metrics(outcome.statistics.sum(0)[:, None], tuned)["micro_f1"][0] > best + 0.1
