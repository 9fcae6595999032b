"""A tiny model, trained for real and read back from its files: what the evaluation says of it can be checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
    pipeline,
)

from hone.errors import ConfigError, DataError, ModelError
from hone.evaluation.judging import baselines, predict
from hone.evaluation.judging.evaluate import evaluate
from hone.evaluation.judging.lexicon import Lexicon
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.objectives.shared import reading
from hone.objectives.shared.reading import Reader
from hone.progress import Progress
from hone.store.artifact import Product
from hone.tokenization.tokenize import read_tokens, tokenize

OBJECTIVE = OBJECTIVES["text-classification"]()
LABELS = ("billing", "praise", "shipping")
WORDS = {label: [f"{label}{n}" for n in range(12)] for label in LABELS}
FILLERS = [f"word{n}" for n in range(40)]


@dataclass(frozen=True)
class Line:
    """What the stages before leave behind: a base model, splits, tokens and a trained model."""

    base: Path
    splits: Path
    tokens: Path
    trained: Path

    def targets(self) -> dict[str, Any]:
        return json.loads((self.tokens / "targets.json").read_text("utf8"))


def write_base(path: Path) -> None:
    """A random BERT of two layers with one word, one token."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *(word for label in LABELS for word in WORDS[label])]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(path)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    ).save_pretrained(path)


def write_splits(path: Path) -> None:
    """Texts of 3 to 20 words, one or two of which tell the label; a tenth of the labels is wrong."""
    generator = np.random.default_rng(5)
    path.mkdir()
    for split, rows in (("train", 180), ("valid", 30), ("test", 90)):
        shares = generator.choice(3, size=rows, p=(0.25, 0.35, 0.4))
        texts = [
            " ".join(
                generator.permutation([*generator.choice(FILLERS, n), *generator.choice(WORDS[LABELS[k]], 1 + n % 2)])
            )
            for k, n in zip(shares, generator.integers(2, 19, size=rows), strict=True)
        ]
        told = np.where(generator.random(rows) < 0.1, (shares + 1) % 3, shares)
        table = pa.table(
            {
                "id": [f"{split}:{n}" for n in range(rows)],
                "source": [("mail", "chat")[n % 2] for n in range(rows)],
                "text": texts,
                "label": [LABELS[k] for k in told],
            }
        )
        pq.write_table(table, path / f"{split}.parquet")


def learn(model: Any, line: Line, steps: int) -> Any:
    """The model after some steps on the training rows."""
    reader = Reader(OBJECTIVE, 0, torch.device("cpu"))
    [batch] = [OBJECTIVE.collate(read_tokens(line.tokens / "train.arrow").to_pydict(), reader.pad_id)]
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=1e-2)
    model.train()
    for _ in range(steps):
        loss, rows = OBJECTIVE.compute_loss(model, batch)
        (loss / rows).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def copy_tokenizer(base: Path, model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, model / name)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads for matrices this small wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("line")
    line = Line(root / "base", root / "splits", root / "tokens", root / "train")
    write_base(line.base)
    write_splits(line.splits)
    line.tokens.mkdir()
    tokenize(line.splits, line.tokens, base=line.base, objective=OBJECTIVE, max_length=18, max_truncated=0.5)
    torch.manual_seed(1)
    learn(OBJECTIVE.load_model(line.base, line.targets()), line, 25).save_pretrained(line.trained / "model")
    copy_tokenizer(line.base, line.trained / "model")
    return line


@pytest.fixture(scope="module")
def adapted(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The same line with a LoRA model: the adapter, and the weights it was merged into."""
    method, trained = METHODS["lora"](), tmp_path_factory.mktemp("adapted")
    torch.manual_seed(2)
    model = learn(method.prepare(OBJECTIVE.load_model(line.base, line.targets())), line, 25)
    model.save_pretrained(trained / "adapter")
    method.merge(model).save_pretrained(trained / "model")
    copy_tokenizer(line.base, trained / "model")
    return Line(line.base, line.splits, line.tokens, trained)


def run(line: Line, out: Path, method: str = "full", **changes: Any) -> Product:
    out.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "max_length": 18,
        "slices": ["length", "source"],
        "neighbours": 5,
        "resamples": 200,
        "confidence": 0.95,
        "worst": 6,
        "seed": 17,
    }
    places = {"model": line.trained, "tokens": line.tokens, "splits": line.splits}
    return evaluate(
        **places, out=out, base=line.base, objective=OBJECTIVE, method=METHODS[method](), **(settings | changes)
    )


@pytest.fixture(scope="module")
def judged(line: Line, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Product]:
    out = tmp_path_factory.mktemp("judged")
    return out, run(line, out)


@pytest.fixture(scope="module")
def metrics(judged: tuple[Path, Product]) -> dict[str, Any]:
    return json.loads((judged[0] / "metrics.json").read_text("utf8"))


def changed(line: Line, tmp_path: Path, part: str, change: Callable[[Path], None]) -> Line:
    """The line with a copy of one of its directories, to which something was done."""
    copy = tmp_path / part
    shutil.copytree(getattr(line, part), copy)
    change(copy)
    return Line(**{**vars(line), part: copy})


def edit_weights(file: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, metadata={"format": "pt"})


def edit_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf8")) | values), "utf8")


def embeddings(line: Line, split: str) -> np.ndarray:
    """Mean-pooled embeddings, text by text, without any batching."""
    tokenizer, model = AutoTokenizer.from_pretrained(line.base), AutoModel.from_pretrained(line.base).eval()
    found = []
    for text in pq.read_table(line.splits / f"{split}.parquet")["text"].to_pylist():
        with torch.inference_mode():
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=18)
            hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        found.append(hidden[0].mean(0).numpy())
    return np.array(found)


def test_predictions_are_those_of_the_pipeline_that_serves_the_model(line: Line, judged: tuple[Path, Product]) -> None:
    serve = pipeline("text-classification", model=str(line.trained / "model"), device="cpu")
    rows = pq.read_table(line.splits / "test.parquet").to_pylist()
    answers = serve([row["text"] for row in rows], truncation=True, max_length=18)
    found = pq.read_table(judged[0] / "predictions.parquet").to_pylist()
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["reference"] for row in found] == [row["label"] for row in rows]
    assert [row["prediction"] for row in found] == [answer["label"] for answer in answers]
    assert [row["confidence"] for row in found] == pytest.approx([answer["score"] for answer in answers], abs=1e-5)
    assert all(sum(row["scores"]) == pytest.approx(1, abs=1e-5) for row in found)


def test_metrics_are_scikit_learns_of_the_predictions(judged: tuple[Path, Product], metrics: dict[str, Any]) -> None:
    found = pq.read_table(judged[0] / "predictions.parquet")
    references, predictions = found["reference"].to_pylist(), found["prediction"].to_pylist()
    model = metrics["systems"]["model"]
    assert model["accuracy"]["value"] == pytest.approx(accuracy_score(references, predictions))
    assert model["macro_f1"]["value"] == pytest.approx(f1_score(references, predictions, average="macro"))
    assert sum(map(sum, metrics["confusion"]["counts"])) == metrics["rows"] == 90
    assert set(metrics["per_class"]) == set(LABELS)
    assert judged[1].facts["metrics"] == {name: figure["value"] for name, figure in model.items()}


def test_a_model_that_learned_beats_both_baselines(metrics: dict[str, Any]) -> None:
    assert metrics["main_metric"] == "accuracy"
    assert set(metrics["comparisons"]) == {"majority", "neighbours", "probe", "tf-idf"}
    for name, comparison in metrics["comparisons"].items():
        ahead = metrics["systems"]["model"]["accuracy"]["value"] - metrics["systems"][name]["accuracy"]["value"]
        assert comparison["difference"] == pytest.approx(ahead)
        assert comparison["low"] > 0
        assert comparison["p"] < 0.05
        # The rows on which only one of both is right are what the two accuracies differ by.
        paired = comparison["paired"]
        assert paired["rows"] == 90 and paired["is_share"] and paired["has_classes"]
        assert (paired["won"] - paired["lost"]) / 90 == pytest.approx(ahead)
        assert paired["won"] + paired["lost"] <= paired["differing"] <= 90


def test_a_model_that_learned_nothing_beats_neither(line: Line, tmp_path: Path) -> None:
    def forget(trained: Path) -> None:
        edit_weights(trained / "model/model.safetensors", lambda weights: weights["classifier.weight"].zero_())

    run(changed(line, tmp_path, "trained", forget), tmp_path / "out")
    found = json.loads((tmp_path / "out/metrics.json").read_text("utf8"))
    assert all(comparison["p"] > 0.05 for comparison in found["comparisons"].values())


def test_the_majority_baseline_answers_the_commonest_training_label(line: Line, metrics: dict[str, Any]) -> None:
    trained_on = pq.read_table(line.splits / "train.parquet")["label"].to_pylist()
    tested_on = pq.read_table(line.splits / "test.parquet")["label"].to_pylist()
    commonest = max(LABELS, key=trained_on.count)
    assert metrics["systems"]["majority"]["accuracy"]["value"] == pytest.approx(tested_on.count(commonest) / 90)


def test_the_neighbours_baseline_is_scikit_learns_on_the_base_models_embeddings(
    line: Line, metrics: dict[str, Any]
) -> None:
    labels = {
        split: pq.read_table(line.splits / f"{split}.parquet")["label"].to_pylist() for split in ("train", "test")
    }
    neighbours = KNeighborsClassifier(5, weights="distance", metric="cosine").fit(
        embeddings(line, "train"), labels["train"]
    )
    predicted = neighbours.predict(embeddings(line, "test"))
    found = metrics["systems"]["neighbours"]
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(labels["test"], predicted))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels["test"], predicted, average="macro"))


def test_every_row_is_in_one_part_of_each_slice(metrics: dict[str, Any]) -> None:
    assert list(metrics["slices"]) == ["length", "source"]
    for parts in metrics["slices"].values():
        assert sum(part["rows"] for part in parts) == 90
        right = sum(part["rows"] * part["model"]["accuracy"]["value"] for part in parts)
        assert right / 90 == pytest.approx(metrics["systems"]["model"]["accuracy"]["value"])
    assert {part["name"] for part in metrics["slices"]["source"]} == {"mail", "chat"}


def test_the_worst_errors_are_the_surest_wrong_answers(judged: tuple[Path, Product], metrics: dict[str, Any]) -> None:
    found = pq.read_table(judged[0] / "predictions.parquet").to_pylist()
    wrong = sorted((row for row in found if row["reference"] != row["prediction"]), key=lambda row: -row["confidence"])
    assert [error["id"] for error in metrics["worst"]] == [row["id"] for row in wrong[:6]]
    for error, row in zip(metrics["worst"], wrong, strict=False):
        assert (error["label"], error["predicted"]) == (row["reference"], row["prediction"])
        assert error["source"] in ("mail", "chat")


def test_the_text_of_an_error_is_cut_at_500_characters(line: Line, tmp_path: Path) -> None:
    def lengthen(splits: Path) -> None:
        rows = pq.read_table(splits / "test.parquet")
        texts = [text + " word1" * 200 for text in rows["text"].to_pylist()]
        pq.write_table(rows.set_column(2, "text", pa.array(texts)), splits / "test.parquet")

    long = changed(line, tmp_path, "splits", lengthen)
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    tokenize(long.splits, tokens, base=line.base, objective=OBJECTIVE, max_length=18, max_truncated=1)
    run(Line(line.base, long.splits, tokens, line.trained), tmp_path / "out")
    found = json.loads((tmp_path / "out/metrics.json").read_text("utf8"))
    assert found["worst"]
    assert all(len(error["text"]) == 500 and error["text"].endswith("…") for error in found["worst"])


def test_speed_is_told_in_parts_that_have_a_slowest(judged: tuple[Path, Product]) -> None:
    found = json.loads((judged[0] / "speed.json").read_text("utf8"))
    assert set(found["parts"]) == {"tokenize", "forward", "post"}
    assert found["slowest"] == max(found["parts"], key=found["parts"].get)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p95"]
    assert found["rows_per_second"] == pytest.approx(90 / sum(found["parts"].values()))


def test_the_same_inputs_give_the_same_bytes(line: Line, judged: tuple[Path, Product], tmp_path: Path) -> None:
    product = run(line, tmp_path)
    assert product.content == ("metrics.json", "predictions.parquet", "targets.json")
    for name in product.content:
        assert (tmp_path / name).read_bytes() == (judged[0] / name).read_bytes()


def test_progress_goes_up_to_the_number_of_rows_that_are_read(line: Line, tmp_path: Path) -> None:
    heard: list[Progress] = []
    run(line, tmp_path, on_progress=heard.append)
    assert [report.done for report in heard] == sorted(report.done for report in heard)
    assert heard[-1].done == heard[-1].total == 90 + 90 + 180
    assert {report.note for report in heard} >= {"testing the model", "embedding train rows"}


def test_rows_in_another_order_than_their_tokens_are_matched_by_id(
    line: Line, judged: tuple[Path, Product], tmp_path: Path
) -> None:
    def shuffle(splits: Path) -> None:
        rows = pq.read_table(splits / "test.parquet")
        pq.write_table(rows.take(np.random.default_rng(0).permutation(90)), splits / "test.parquet")

    run(changed(line, tmp_path, "splits", shuffle), tmp_path / "out")
    assert (tmp_path / "out/metrics.json").read_bytes() == (judged[0] / "metrics.json").read_bytes()


def test_merged_weights_that_score_as_the_adapter_does_are_accepted(adapted: Line, tmp_path: Path) -> None:
    product = run(adapted, tmp_path, "lora")
    found = json.loads((tmp_path / "metrics.json").read_text("utf8"))
    assert found["merged"]["rows"] == 90
    assert 0 < found["merged"]["largest_difference"] < 1e-4
    assert product.facts["merged"] == found["merged"]


def test_merged_weights_that_are_not_the_adapters_are_refused(adapted: Line, tmp_path: Path) -> None:
    def turn(trained: Path) -> None:
        def edit(weights: dict[str, torch.Tensor]) -> None:
            for name in weights:
                if "lora_B" in name:
                    weights[name] *= -1

        edit_weights(trained / "adapter/adapter_model.safetensors", edit)

    with pytest.raises(
        ModelError, match=r"adapter on its base differ by up to 0\.\d+ on the test rows, where 0\.0001 is allowed"
    ):
        run(changed(adapted, tmp_path, "trained", turn), tmp_path / "out", "lora")


def test_an_adapter_that_was_trained_without_its_head_is_refused(line: Line, tmp_path: Path) -> None:
    # Without a task type PEFT neither trains nor saves the head: on the base it is another random one.
    copied = changed(line, tmp_path, "trained", lambda trained: shutil.rmtree(trained / "model"))
    model = get_peft_model(
        OBJECTIVE.load_model(line.base, line.targets()), LoraConfig(target_modules=["query", "value"])
    )
    model.save_pretrained(copied.trained / "adapter")
    model.merge_and_unload().save_pretrained(copied.trained / "model")
    copy_tokenizer(line.base, copied.trained / "model")
    with pytest.raises(ModelError, match="scores of the merged weights and of the adapter on its base differ"):
        run(copied, tmp_path / "out", "lora")


def test_an_adapter_of_which_a_weight_is_missing_is_refused(adapted: Line, tmp_path: Path) -> None:
    def behead(trained: Path) -> None:
        file = trained / "adapter/adapter_model.safetensors"
        edit_weights(file, lambda weights: weights.__delitem__("base_model.model.classifier.weight"))

    with pytest.raises(ModelError, match=r"cannot be loaded as it would be served.*classifier\.weight"):
        run(changed(adapted, tmp_path, "trained", behead), tmp_path / "out", "lora")


def test_an_adapter_that_is_not_there_is_missed(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="trains an adapter, but there is none"):
        run(line, tmp_path, "lora")


def test_a_saved_model_without_its_head_is_refused(line: Line, tmp_path: Path) -> None:
    def behead(trained: Path) -> None:
        edit_weights(trained / "model/model.safetensors", lambda weights: weights.__delitem__("classifier.weight"))

    with pytest.raises(ModelError, match=r"its files lack the weights classifier\.weight"):
        run(changed(line, tmp_path, "trained", behead), tmp_path / "out")


def test_a_saved_model_whose_labels_are_in_another_order_is_refused(line: Line, tmp_path: Path) -> None:
    def rename(trained: Path) -> None:
        edit_json(trained / "model/config.json", id2label=dict(enumerate(reversed(LABELS))))

    with pytest.raises(ModelError, match=r"its labels \['shipping', 'praise', 'billing'\] are not those"):
        run(changed(line, tmp_path, "trained", rename), tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_saved_model_of_which_a_file_is_missing_is_refused(line: Line, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        run(
            changed(line, tmp_path, "trained", lambda trained: (trained / "model" / name).unlink()),
            tmp_path / "out",
        )


def test_a_tokenizer_that_is_not_the_one_the_tokens_came_from_is_refused(line: Line, tmp_path: Path) -> None:
    def swap(trained: Path) -> None:
        file = trained / "model/tokenizer.json"
        tokenizer = json.loads(file.read_text("utf8"))
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["word1"], vocabulary["word2"] = vocabulary["word2"], vocabulary["word1"]
        file.write_text(json.dumps(tokenizer), "utf8")

    with pytest.raises(ModelError, match="gives other tokens than those the model was tested on"):
        run(changed(line, tmp_path, "trained", swap), tmp_path / "out")


def test_scores_that_are_not_numbers_are_refused(line: Line, tmp_path: Path) -> None:
    def spoil(trained: Path) -> None:
        edit_weights(trained / "model/model.safetensors", lambda weights: weights["classifier.bias"].fill_(torch.nan))

    with pytest.raises(ModelError, match="not finite") as caught:
        run(changed(line, tmp_path, "trained", spoil), tmp_path / "out")
    assert "test:" in caught.value.where


def test_an_unknown_slice_is_told_before_the_model_is_looked_for(line: Line, tmp_path: Path) -> None:
    nowhere = Line(line.base, line.splits, line.tokens, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no such column as topic; there are length, source, label"):
        run(nowhere, tmp_path / "out", slices=["length", "topic"])


@pytest.mark.parametrize(
    ("kept", "message"),
    [(0, "has no rows to test"), (89, "89 rows are not the 90"), (91, "91 rows are not the 90")],
)
def test_test_rows_that_are_not_those_tokenized_are_refused(
    line: Line, tmp_path: Path, kept: int, message: str
) -> None:
    def change(splits: Path) -> None:
        test, valid = pq.read_table(splits / "test.parquet"), pq.read_table(splits / "valid.parquet")
        pq.write_table(pa.concat_tables([test, valid]).slice(0, kept), splits / "test.parquet")

    with pytest.raises(DataError, match=message):
        run(changed(line, tmp_path, "splits", change), tmp_path / "out")


def test_training_rows_are_remembered_block_by_block_as_they_are_at_once(
    line: Line, metrics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIMITS", {"cpu": (16, 2048)})
    monkeypatch.setattr(baselines, "BLOCK", 50)
    run(line, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text("utf8"))
    assert found["systems"]["neighbours"] == metrics["systems"]["neighbours"]


def test_batches_hold_rows_of_like_length_within_the_limit_and_every_row_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIMITS", {"cpu": (16, 100)})
    tokens = read_tokens(line.tokens / "train.arrow")
    batches = list(Reader(OBJECTIVE, 0, torch.device("cpu")).batches(tokens))
    assert sorted(np.concatenate([at for at, _ in batches]).tolist()) == list(range(180))
    assert all(batch["input_ids"].numel() <= 100 and len(at) <= 16 for at, batch in batches)
    tokens_there = sum(len(row) for row in tokens["input_ids"].to_pylist())
    assert sum(batch["input_ids"].numel() for _, batch in batches) < 1.1 * tokens_there


def test_a_row_longer_than_the_limit_goes_alone(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LIMITS", {"cpu": (16, 4)})
    tokens = read_tokens(line.tokens / "test.arrow")
    batches = list(Reader(OBJECTIVE, 0, torch.device("cpu")).batches(tokens))
    assert [len(at) for at, _ in batches] == [1] * 90


def test_of_an_encoder_and_a_decoder_the_encoder_embeds(tmp_path: Path) -> None:
    T5Model(T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    encoder = predict.load_base(tmp_path, torch.device("cpu"))
    ids = torch.tensor([[4, 5, 6]])
    assert encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.shape == (1, 3, 16)


def test_a_base_model_without_weights_is_told_by_its_place(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded for its embeddings") as caught:
        predict.load_base(tmp_path, torch.device("cpu"))
    assert caught.value.where == str(tmp_path)


def finite(value: object) -> bool:
    """Whether every number in a JSON tree is finite and nothing in it is null but what may be."""
    if isinstance(value, Mapping):
        return all(finite(inner) for inner in value.values())
    if isinstance(value, list):
        return all(finite(inner) for inner in value)
    return not isinstance(value, float) or bool(np.isfinite(value))


def test_a_test_split_of_one_row_gives_finite_figures(line: Line, tmp_path: Path) -> None:
    def cut(splits: Path) -> None:
        pq.write_table(pq.read_table(splits / "test.parquet").slice(0, 1), splits / "test.parquet")

    short = changed(line, tmp_path, "splits", cut)
    (tmp_path / "tokens").mkdir()
    tokenize(short.splits, tmp_path / "tokens", base=line.base, objective=OBJECTIVE, max_length=18, max_truncated=1)
    run(Line(line.base, short.splits, tmp_path / "tokens", line.trained), tmp_path / "out", neighbours=500)
    found = json.loads((tmp_path / "out/metrics.json").read_text("utf8"))
    assert found["rows"] == 1
    assert finite(found)


def test_groups_and_swapped_words_are_those_of_the_served_model(line: Line, tmp_path: Path) -> None:
    pairs = [(f"billing{n}", f"praise{n}") for n in range(12)]
    reports: list[Progress] = []
    run(line, tmp_path, groups=["source"], lexicon=Lexicon("words", pairs), on_progress=reports.append)
    assert reports[-1].done == reports[-1].total
    written = json.loads((tmp_path / "metrics.json").read_text("utf8"))
    source = written["groups"]["source"]
    assert {row["name"]: row["rows"] for row in source["judged"]} == {"mail": 45, "chat": 45}
    by_slice = {part["name"]: part["model"]["accuracy"] for part in written["slices"]["source"]}
    assert {row["name"]: row["model"]["accuracy"] for row in source["judged"]} == by_slice
    values = [figure["value"] for figure in by_slice.values()]
    assert source["gaps"]["model"]["metric"]["value"] == pytest.approx(max(values) - min(values))
    assert source["base"] == "neighbours" and set(source["changes"]) == {
        "metric",
        "demographic_parity",
        "equalized_odds",
    }
    assert source["labels"]["rows"] == 180
    serve = pipeline("text-classification", model=str(line.trained / "model"), device="cpu")
    lexicon, asked, changed = Lexicon("words", pairs), 0, 0
    for text in pq.read_table(line.splits / "test.parquet")["text"].to_pylist():
        if lexicon.find_pairs(text):
            before, after = serve([text, lexicon.swap(text)], truncation=True, max_length=18)
            asked, changed = asked + 1, changed + (before["label"] != after["label"])
    assert changed > 20  # the model learned from these words
    assert (written["flips"]["rows"], written["flips"]["changed"]) == (asked, changed)


def test_a_group_that_is_no_column_is_refused(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such column as region; there are source") as caught:
        run(line, tmp_path, groups=["region"])
    assert caught.value.where == "evaluation.groups"
