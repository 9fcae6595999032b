from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.neighbors import KNeighborsRegressor

from hone.curation.split import split_rows
from hone.errors import DataError
from hone.evaluation.judging import metrics
from hone.objectives.regression import Regression
from hone.objectives.shared.tokenizer import load_tokenizer
from tests.tiny_bases import tiny_bert, tiny_llama

OBJECTIVE = Regression()
TARGETS = {"mean": 3.0, "deviation": 2.0}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def rows(numbers: Any) -> pa.Table:
    return pa.table(
        {
            "id": [f"a.csv:{n}" for n in range(len(numbers))],
            "text": [f"card {n} lost" for n in range(len(numbers))],
            "label": [str(number) for number in numbers],
        }
    )


def encoded(right: np.ndarray, targets: dict[str, float]) -> pa.Table:
    standard = (right - targets["mean"]) / targets["deviation"]
    return pa.table({"label": right, "standard": standard, "lost": np.zeros(len(right), np.int32)})


def statistics(right: np.ndarray, said: np.ndarray, targets: dict[str, float]) -> np.ndarray:
    raw = {"scores": (said - targets["mean"]) / targets["deviation"]}
    return OBJECTIVE.compute_outcome(encoded(right, targets), raw, targets).statistics


def figures(right: np.ndarray, said: np.ndarray, targets: dict[str, float]) -> dict[str, float]:
    sums = statistics(right, said, targets).sum(0)[:, None]
    return {name: float(of[0]) for name, of in OBJECTIVE.compute_metrics(sums, targets).items()}


@pytest.mark.parametrize(
    ("given", "number"),
    [("3.5", 3.5), (" -2 ", -2), (7, 7), (0.25, 0.25), ("1e3", 1000), (Decimal("1.10"), 1.1), ("+.5", 0.5)],
)
def test_a_number_may_be_text(given: Any, number: float) -> None:
    assert OBJECTIVE.normalize_row({"text": "a", "label": given})["label"] == number


@pytest.mark.parametrize("given", ["joy", "", "1,5", "nan", "inf", "1e999", "1_000", True, [1.0], float("inf")])
def test_what_is_no_number_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="label is not a number: "):
        OBJECTIVE.normalize_row({"text": "a", "label": given})


def test_null_is_left_for_ingest_to_refuse() -> None:
    assert OBJECTIVE.normalize_row({"text": "a", "label": None})["label"] is None


def test_it_has_no_class() -> None:
    assert Regression.label == ""


def test_targets_are_mean_and_deviation() -> None:
    assert OBJECTIVE.build_targets(rows([1.0, 2.0, 6.0])) == pytest.approx(
        {"mean": 3.0, "deviation": math.sqrt(14 / 3)}
    )
    with pytest.raises(DataError, match=r"column label: all rows have the number 2"):
        OBJECTIVE.build_targets(rows([2, 2.0, "2.00"]))


def test_every_split_has_its_share_of_every_range() -> None:
    draw = np.random.default_rng(2)
    numbers = draw.exponential(100, 300)
    texts = [" ".join(map(str, draw.integers(0, 10**6, 8))) for _ in numbers]
    strata = OBJECTIVE.strata(rows(numbers))
    assert len(set(strata)) == 10
    splits = np.array(split_rows(texts, strata, range(300), valid=0.1, test=0.2, seed=1))
    for low in range(10):
        place = np.array(strata) == str(low)
        assert place.sum() == 30
        assert [(splits[place] == split).sum() for split in ("train", "valid", "test")] == [21, 3, 6]
    assert set(OBJECTIVE.strata(rows([1, 2, 3]))) == {"0"}


def test_encoding_keeps_the_number_and_makes_it_standard(bert: Path) -> None:
    table = OBJECTIVE.encode(rows(["3.0", "7.1"]), load_tokenizer(bert), 8, TARGETS)
    assert table["label"].to_pylist() == [3.0, 7.1]
    assert table["standard"].to_pylist() == pytest.approx([0, 2.05])
    batch = OBJECTIVE.collate(table.to_pydict(), 0)
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == pytest.approx([0, 2.05])
    asked = OBJECTIVE.encode(rows(["1"]).select(["id", "text"]), load_tokenizer(bert), 8, TARGETS, labelled=False)
    assert asked.column_names == ["id", "input_ids", "lost"]


@pytest.mark.parametrize("error", ["mse", "huber", "mae"])
def test_the_loss_is_a_sum_over_rows_of_standard_errors(bert: Path, error: Any) -> None:
    objective = Regression(error=error)
    model = objective.load_model(bert, TARGETS).eval()
    batch = objective.collate({"input_ids": [[2, 5, 3], [2, 3]], "standard": [0.1, -3.0]}, 0)
    loss, count = objective.compute_loss(model, batch)
    away = np.abs(objective.predict_batch(model, batch)["scores"] - batch["labels"].numpy())
    expected = {"mse": away**2, "mae": away, "huber": np.where(away < 1, away**2 / 2, away - 0.5)}[error].sum()
    assert (loss.item(), count) == (pytest.approx(expected, rel=1e-5), 2)
    if error == "mse":  # what transformers has for such models
        assert model.config.problem_type == "regression"
        assert loss.item() / count == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_padding_changes_no_score(base: str, request: pytest.FixtureRequest) -> None:
    model = OBJECTIVE.load_model(request.getfixturevalue(base), TARGETS).eval()
    pad = model.config.pad_token_id
    together = OBJECTIVE.predict_batch(model, OBJECTIVE.collate({"input_ids": [[5, 6], [5, 6, 7, 8, 9]]}, pad))[
        "scores"
    ]
    alone = OBJECTIVE.predict_batch(model, OBJECTIVE.collate({"input_ids": [[5, 6]]}, pad))["scores"]
    assert together.shape == (2,)
    assert together[0] == pytest.approx(alone[0], abs=1e-5)
    assert together[0] != pytest.approx(together[1], abs=1e-4)


class TestFigures:
    @pytest.mark.parametrize("scale", [(0, 1), (5e6, 1e5), (1e6, 1e-3)])
    @pytest.mark.parametrize("ties", [False, True])
    def test_they_are_those_of_scipy_and_scikit_learn(self, scale: tuple[float, float], ties: bool) -> None:
        draw = np.random.default_rng(1)
        right = draw.normal(size=80)
        said = 0.6 * right + draw.normal(size=80) * 0.5
        if ties:
            right, said = np.round(right), np.round(said)
        right, said = scale[0] + scale[1] * right, scale[0] + scale[1] * said
        targets = {"mean": float(right[:40].mean()), "deviation": float(right[:40].std())}
        found = figures(right, said, targets)
        assert found["pearson"] == pytest.approx(pearsonr(right, said).statistic, rel=1e-6)
        assert found["spearman"] == pytest.approx(spearmanr(right, said).statistic, rel=1e-9)
        assert found["mae"] == pytest.approx(mean_absolute_error(right, said), rel=1e-6)
        assert found["rmse"] == pytest.approx(root_mean_squared_error(right, said), rel=1e-6)
        assert found["r2"] == pytest.approx(r2_score(right, said), rel=1e-6)

    def test_on_resamples_they_are_those_of_the_drawn_rows(self) -> None:
        draw = np.random.default_rng(3)
        right = np.round(draw.normal(3, 2, 40), 1)
        said = np.round(right + draw.normal(0, 1, 40), 1)
        draws = metrics.resample(40, 5, seed=1)
        found = OBJECTIVE.compute_metrics(metrics.totals(statistics(right, said, TARGETS), draws), TARGETS)
        for column in range(6):
            at = np.repeat(np.arange(40), draws[:, column])
            assert found["pearson"][column] == pytest.approx(pearsonr(right[at], said[at]).statistic)
            assert found["r2"][column] == pytest.approx(r2_score(right[at], said[at]))
            assert found["rmse"][column] == pytest.approx(root_mean_squared_error(right[at], said[at]))
            # The order is that among all rows: a drawn row has the rank it has there.
            ranks = pearsonr(rankdata(right)[at], rankdata(said)[at]).statistic
            assert found["spearman"][column] == pytest.approx(ranks)

    def test_constant_answers_correlate_with_nothing(self) -> None:
        right = np.array([1.0, 2.0, 4.0])
        found = figures(right, np.full(3, 2.7), TARGETS)
        assert (found["pearson"], found["spearman"]) == (0, 0)
        assert found["r2"] == pytest.approx(r2_score(right, np.full(3, 2.7)))

    def test_of_one_number_alone_only_errors_are_known(self) -> None:
        for right in (np.array([4.0]), np.array([4.1, 4.1, 4.1])):
            found = figures(right, right + np.arange(len(right)) - 1.0, TARGETS)
            assert np.isnan([found["r2"], found["pearson"], found["spearman"]]).all()
            assert found["mae"] == pytest.approx(np.abs(np.arange(len(right)) - 1.0).mean())

    def test_no_rows(self) -> None:
        found = OBJECTIVE.compute_metrics(np.zeros((13, 1)), TARGETS)
        assert all(np.isnan(of[0]) for of in found.values())


def test_people_and_callers_are_told_numbers_in_the_labels_unit() -> None:
    raw = {"scores": np.array([0.0, 1.5], np.float32)}
    tokens = encoded(np.array([3.0, 1234.5678]), TARGETS)
    outcome = OBJECTIVE.compute_outcome(tokens, raw, TARGETS)
    assert (list(outcome.predictions), list(outcome.references)) == (["3", "6"], ["3", "1235"])
    assert outcome.errors[0] == 0 < outcome.errors[1]
    assert OBJECTIVE.build_answers(tokens, raw, TARGETS, []) == [
        {"value": 3.0, "truncated": False},
        {"value": 6.0, "truncated": False},
    ]


class TestRivals:
    def test_the_mean_of_the_training_rows(self) -> None:
        tokens = encoded(np.array([1.0, 8.0]), TARGETS)
        said = OBJECTIVE.baseline_predictions(tokens, tokens, TARGETS, tokens)["mean"]
        assert OBJECTIVE.build_answers(tokens, said, TARGETS, []) == [{"value": 3.0, "truncated": False}] * 2

    def test_neighbours_vote_as_scikit_learns_regressor(self) -> None:
        draw = np.random.default_rng(6)
        train, queries, right = draw.normal(size=(40, 3)), draw.normal(size=(10, 3)), draw.normal(3, 2, 40)
        regressor = KNeighborsRegressor(5, weights="distance").fit(train, right)
        distances, at = regressor.kneighbors(queries)
        tokens = encoded(right, TARGETS)
        found = OBJECTIVE.neighbour_predictions(1 / distances, at, tokens, TARGETS)
        told = [one["value"] for one in OBJECTIVE.build_answers(tokens.slice(0, 10), found, TARGETS, [])]
        assert told == pytest.approx(regressor.predict(queries).tolist(), rel=1e-5)


def test_a_real_text_learns_its_number(shared: Path) -> None:
    """Messages with the share of their characters that are digits: what tells spam."""
    lines = (shared / "datasets/sms_spam/sms.tsv").read_text("utf8").splitlines()[:80]
    texts = [line.split("\t", 1)[1] for line in lines]
    table = rows([100 * sum(sign.isdigit() for sign in text) / len(text) for text in texts])
    table = table.set_column(1, "text", pa.array(texts))
    targets = OBJECTIVE.build_targets(table)
    base = shared / "models" / "stories260K"
    tokens = OBJECTIVE.encode(table, load_tokenizer(base), 64, targets)
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
    found = OBJECTIVE.compute_metrics(
        OBJECTIVE.compute_outcome(tokens, raw, targets).statistics.sum(0)[:, None], targets
    )
    assert found["r2"][0] > 0.5
    told = [one["value"] for one in OBJECTIVE.build_answers(tokens, raw, targets, [])]
    assert found["mae"][0] == pytest.approx(mean_absolute_error(tokens["label"].to_numpy(), told), rel=1e-5)
