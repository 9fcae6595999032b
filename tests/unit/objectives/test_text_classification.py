from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from hone.errors import ConfigError, DataError, ModelError
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.regression import Regression
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.text_classification import TextClassification
from tests.tiny_bases import tiny_bert, tiny_llama

OBJECTIVE = TextClassification()
TARGETS = {"labels": ["card", "money", "refund"]}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def rows(texts: list[str | None], labels: list[str | None]) -> pa.Table:
    ids = [f"train.csv:{n}" for n in range(len(texts))]
    return pa.table({"id": ids, "text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})


def test_it_says_what_it_needs() -> None:
    assert (TextClassification.columns, TextClassification.text, TextClassification.label) == (
        ("text", "label"),
        ("text",),
        "label",
    )


def test_targets_are_the_sorted_label_names() -> None:
    assert OBJECTIVE.build_targets(rows(["a"] * 4, ["refund", "card", None, "refund"])) == {
        "labels": ["card", "refund"],
        "shares": [pytest.approx(1 / 3), pytest.approx(2 / 3)],
    }


@pytest.mark.parametrize("labels", [["refund"], [None]])
def test_one_class_only_is_refused(labels: list[str | None]) -> None:
    with pytest.raises(DataError, match="needs two or more"):
        OBJECTIVE.build_targets(rows(["a"], labels))


def test_encoding_is_what_the_tokenizer_itself_gives(bert: Path) -> None:
    texts = ["My card is lost", "", "where " * 40, "money"]
    tokenizer = load_tokenizer(bert)
    expected = tokenizer(texts, truncation=True, max_length=10)["input_ids"]
    encoded = OBJECTIVE.encode(rows(texts, ["card", "card", "refund", "money"]), tokenizer, 10, TARGETS)
    assert encoded.schema == pa.schema(
        {"id": pa.string(), "input_ids": pa.list_(pa.int32()), "label": pa.int64(), "lost": pa.int32()}
    )
    assert encoded["input_ids"].to_pylist() == expected
    assert encoded["label"].to_pylist() == [0, 0, 2, 1]
    assert encoded["lost"].to_pylist() == [0, 0, 40 - 8, 0]


def test_a_label_that_no_training_row_has_is_an_error_and_has_no_loss(bert: Path) -> None:
    table = rows(["a", "b", "c"], ["card", "cheque", "cheque"])
    assert OBJECTIVE.list_unseen_labels(table, TARGETS) == ["cheque", "cheque"]
    tokens = OBJECTIVE.encode(table, load_tokenizer(bert), 10, TARGETS)
    scores = np.eye(3, dtype=np.float32)
    outcome = OBJECTIVE.compute_outcome(tokens, {"scores": scores}, TARGETS)
    assert outcome.references == ["card", "(not in training)", "(not in training)"]
    assert (outcome.errors > 0).tolist() == [False, True, True]
    sums = outcome.statistics.sum(0)[:, None]
    assert OBJECTIVE.compute_metrics(sums, TARGETS)["accuracy"] == pytest.approx(1 / 3)
    assert OBJECTIVE.compute_group_metrics(sums, TARGETS)["(not in training)"]["support"] == [2]
    model = OBJECTIVE.load_model(bert, TARGETS).eval()
    columns = tokens.select(["input_ids", "label"]).to_pydict()
    loss, count = OBJECTIVE.compute_loss(model, OBJECTIVE.collate(columns, 0))
    alone, _ = OBJECTIVE.compute_loss(model, OBJECTIVE.collate({k: v[:1] for k, v in columns.items()}, 0))
    assert count == 1 and loss.item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_row_without_a_text_is_named(bert: Path) -> None:
    with pytest.raises(DataError, match=r"row train.csv:1: a row has no text"):
        OBJECTIVE.encode(rows(["a", None], ["card", "card"]), load_tokenizer(bert), 10, TARGETS)


def test_a_word_with_the_padding_id_of_config_json_learns(tmp_path: Path) -> None:
    """The tokenizer pads with another token: what config.json says is a word of the rows."""
    base = tiny_bert(tmp_path)
    tokenizer, config = load_tokenizer(base), json.loads((base / "config.json").read_text("utf8"))
    word = tokenizer("card", add_special_tokens=False)["input_ids"][0]
    (base / "config.json").write_text(json.dumps(config | {"pad_token_id": word}), "utf8")
    model = OBJECTIVE.load_model(base, TARGETS)
    loss, _ = OBJECTIVE.compute_loss(
        model, OBJECTIVE.collate({"input_ids": [[2, word, 3], [2, 3]], "label": [0, 1]}, 0)
    )
    loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert (gradient[word] != 0).any()
    assert (gradient[tokenizer.pad_token_id] == 0).all()


def test_a_batch_is_padded_to_its_longest_row() -> None:
    batch = OBJECTIVE.collate({"input_ids": [[5, 6, 7], np.array([8], np.int32)], "label": [1, 0]}, pad_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def scores(model: Any, rows: dict[str, Any], pad: int) -> torch.Tensor:
    return torch.from_numpy(OBJECTIVE.predict_batch(model, OBJECTIVE.collate(rows, pad))["scores"])


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_padding_changes_no_score(base: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(base)
    model = OBJECTIVE.load_model(path, TARGETS).eval()
    pad = model.config.pad_token_id
    short, long = [5, 6], [5, 6, 7, 8, 9, 10]
    together = scores(model, {"input_ids": [short, long]}, pad)
    alone = scores(model, {"input_ids": [short]}, pad)
    assert torch.allclose(together[0], alone[0], atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-4)
    assert torch.allclose(together.sum(1), torch.ones(2))


def test_a_decoder_without_a_padding_token_is_padded_with_its_end_token(llama: Path) -> None:
    assert load_tokenizer(llama).pad_token == "<end>"
    assert OBJECTIVE.load_model(llama, TARGETS).config.pad_token_id == 1


def test_the_head_knows_the_labels_and_is_seeded_by_the_caller(bert: Path) -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = OBJECTIVE.load_model(bert, TARGETS)
        heads.append(model.classifier.weight)
    assert model.config.id2label == {0: "card", 1: "money", 2: "refund"}
    assert model.config.label2id == {"card": 0, "money": 1, "refund": 2}
    assert model.dtype == torch.float32
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_classifier_with_other_labels_gets_a_new_head(bert: Path, tmp_path: Path) -> None:
    OBJECTIVE.load_model(bert, {"labels": ["yes", "no"]}).save_pretrained(tmp_path)
    load_tokenizer(bert).save_pretrained(tmp_path)
    assert OBJECTIVE.load_model(tmp_path, TARGETS).classifier.out_features == 3


def test_weights_that_do_not_fit_the_config_are_refused(bert: Path, tmp_path: Path) -> None:
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"weights are not in its files.*encoder.layer.2"):
        OBJECTIVE.load_model(tmp_path, TARGETS)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded with the head"):
        OBJECTIVE.load_model(tmp_path, TARGETS)


@pytest.mark.parametrize(
    ("objective", "targets"),
    [
        (TextClassification(), TARGETS),
        (MultiLabelClassification(), {**TARGETS, "shares": [0.5] * 3}),
        (Regression(), {"mean": 1.0, "deviation": 2.0}),
    ],
)
def test_an_answer_says_whether_the_text_was_truncated(objective: Any, targets: dict[str, Any], bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    model = objective.load_model(bert, targets).eval()
    asked = [{"text": text} for text in ("card", "card " * 8, "card " * 9, "")]
    answers = reader.answer(model, asked, targets, 10)
    assert [answer["truncated"] for answer in answers] == [False, False, True, False]
    assert objective.outputs["truncated"] == "boolean"


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_a_sum_over_rows(bert: Path, smoothing: float) -> None:
    objective = TextClassification(label_smoothing=smoothing)
    model = objective.load_model(bert, TARGETS).eval()
    batch = objective.collate({"input_ids": [[2, 5, 3], [2, 3]], "label": [0, 2]}, 0)
    loss, count = objective.compute_loss(model, batch)
    log_scores = torch.from_numpy(objective.predict_batch(model, batch)["scores"]).log()
    target = (1 - smoothing) * torch.nn.functional.one_hot(batch["labels"], 3) + smoothing / 3
    assert loss.item() == pytest.approx(-(target * log_scores).sum().item(), rel=1e-5)
    assert count == 2


@pytest.mark.parametrize(
    ("weights", "expected"), [("balanced", [2 / 3, 4 / 3, 4 / 3]), ({"money": 5.0}, [0.5, 2.5, 0.5])]
)
def test_class_weights_have_the_mean_1_over_the_training_rows(bert: Path, weights: Any, expected: list[float]) -> None:
    table = rows(["a"] * 4, ["card", "card", "money", "refund"])
    objective = TextClassification(class_weights=weights)
    targets = objective.build_targets(table)
    model = objective.load_model(bert, targets).eval()
    assert model.class_weight.tolist() == pytest.approx(expected)
    assert "class_weight" not in model.state_dict()
    batch = objective.collate({"input_ids": [[2, 5, 3], [2, 3]], "label": [0, 1]}, 0)
    loss, count = objective.compute_loss(model, batch)
    log_scores = np.log(objective.predict_batch(model, batch)["scores"])
    assert loss.item() == pytest.approx(-expected[0] * log_scores[0, 0] - expected[1] * log_scores[1, 1], rel=1e-5)
    assert count == 2
    # Balanced as scikit-learn does it.
    if weights == "balanced":
        balanced = compute_class_weight("balanced", classes=np.array(targets["labels"]), y=table["label"].to_pylist())
        assert model.class_weight.tolist() == pytest.approx(balanced.tolist())


def test_focal_loss_counts_what_is_predicted_well_less(bert: Path) -> None:
    objective = TextClassification(focal=2.0)
    model = objective.load_model(bert, TARGETS).eval()
    batch = objective.collate({"input_ids": [[2, 5, 3], [2, 3], [2, 6]], "label": [0, 2, 3]}, 0)
    loss, count = objective.compute_loss(model, batch)
    scores = objective.predict_batch(model, batch)["scores"]
    right = np.array([scores[0, 0], scores[1, 2]])  # the third row's label is in no training row
    assert loss.item() == pytest.approx((-((1 - right) ** 2) * np.log(right)).sum(), rel=1e-5)
    assert count == 2


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({"monney": 2.0}, "no training row has the label monney"),
        ({"card": -1.0}, "0 or more"),
        ({"card": 0, "money": 0, "refund": 0}, "not all 0"),
    ],
)
def test_weights_that_fit_no_label_are_refused(bert: Path, weights: dict[str, float], fault: str) -> None:
    objective = TextClassification(class_weights=weights)
    targets = objective.build_targets(rows(["a"] * 3, ["card", "money", "refund"]))
    with pytest.raises(ConfigError, match=fault):
        objective.load_model(bert, targets)


def test_a_real_decoder_learns_two_labels(shared: Path) -> None:
    base = shared / "models" / "stories260K"
    table = rows(["the dog ran to the park", "she was very sad"] * 4, ["happy", "sad"] * 4)
    targets = OBJECTIVE.build_targets(table)
    encoded = OBJECTIVE.encode(table, load_tokenizer(base), 32, targets)
    torch.manual_seed(0)
    model = OBJECTIVE.load_model(base, targets)
    batch = OBJECTIVE.collate(encoded.to_pydict(), model.config.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss, count = OBJECTIVE.compute_loss(model, batch)
        losses.append(loss.item() / count)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 2
    outcome = OBJECTIVE.compute_outcome(encoded, OBJECTIVE.predict_batch(model, batch), targets)
    assert OBJECTIVE.compute_metrics(outcome.statistics.sum(0)[:, None], targets)["accuracy"] == 1
