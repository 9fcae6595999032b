"""What is chosen on the validation rows: by each system for itself, and then used wherever it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score

from hone.evaluation.judging import baselines
from hone.evaluation.judging.evaluate import evaluate
from hone.methods.full import Full
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.tokenization.tokenize import read_tokens, tokenize
from tests.tiny_bases import WORDS, tiny_bert

OBJECTIVE = MultiLabelClassification()
LABELS = ["card", "money", "refund"]
K = 5


def write_splits(folder: Path, valid: int) -> None:
    """Texts that name their labels, and often one more."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for split, size in (("train", 60), ("valid", valid), ("test", 40)):
        sets = [sorted(draw.choice(LABELS, draw.integers(0, 3), replace=False)) for _ in range(size)]
        texts = [" ".join([*names, *draw.choice(WORDS, 6)]) for names in sets]
        columns = {"id": [f"{split}:{n}" for n in range(size)], "source": ["here"] * size, "text": texts}
        table = pa.table({**columns, "labels": list(map(json.dumps, sets))})
        schema = pa.schema([(name, pa.string()) for name in table.column_names])
        pq.write_table(table.cast(schema), folder / f"{split}.parquet")


def tried(folder: Path, valid: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """metrics.json and targets.json of an untrained model."""
    for name in ("base", "tokens", "out"):
        (folder / name).mkdir()
    base = tiny_bert(folder / "base")
    write_splits(folder / "splits", valid)
    tokenize(folder / "splits", folder / "tokens", base=base, objective=OBJECTIVE, max_length=16, max_truncated=0.0)
    torch.manual_seed(3)
    targets = json.loads((folder / "tokens/targets.json").read_text())
    OBJECTIVE.load_model(base, targets).save_pretrained(folder / "trained/model")
    load_tokenizer(base).save_pretrained(folder / "trained/model")
    product = evaluate(
        folder / "trained",
        folder / "tokens",
        folder / "splits",
        folder / "out",
        base=base,
        objective=OBJECTIVE,
        method=Full(),
        max_length=16,
        slices=["length"],
        neighbours=K,
        resamples=20,
        confidence=0.9,
        worst=3,
        seed=1,
    )
    assert "targets.json" in product.content
    return json.loads((folder / "out/metrics.json").read_text()), json.loads((folder / "out/targets.json").read_text())


def marked(tokens: pa.Table) -> np.ndarray:
    return np.array(tokens["labels"].to_pylist(), bool)


def test_every_system_has_thresholds_of_its_own(tmp_path: Path) -> None:
    metrics, targets = tried(tmp_path, valid=50)
    plain = json.loads((tmp_path / "tokens/targets.json").read_text())
    valid, test, train = (read_tokens(tmp_path / f"tokens/{split}.arrow") for split in ("valid", "test", "train"))

    # The model's, chosen on the validation rows, decide what it says of the test rows, and are what will be served.
    reader = Reader(OBJECTIVE, 0, torch.device("cpu"))
    model = OBJECTIVE.load_model(tmp_path / "trained/model", plain).eval()
    ours = OBJECTIVE.tune_targets(valid, reader.predict(model, valid)[0], plain)
    assert targets["thresholds"] == pytest.approx(ours["thresholds"], abs=1e-6)
    assert any(threshold != 0.5 for threshold in targets["thresholds"])
    said = np.asarray(reader.predict(model, test)[0]["scores"]) >= np.array(targets["thresholds"])
    assert metrics["systems"]["model"]["micro_f1"]["value"] == pytest.approx(
        f1_score(marked(test), said, average="micro")
    )

    # The neighbours' are theirs.
    def votes(rows: pa.Table) -> Any:
        place = tmp_path / "base"
        return baselines.embedding_predictions(place, train, rows, K, reader, lambda *_: None, plain)["neighbours"]

    theirs = OBJECTIVE.tune_targets(valid, votes(valid), plain)
    assert theirs["thresholds"] != targets["thresholds"]
    said = votes(test)["scores"] >= np.array(theirs["thresholds"])
    assert metrics["systems"]["neighbours"]["micro_f1"]["value"] == pytest.approx(
        f1_score(marked(test), said, average="micro")
    )


def test_without_validation_rows_nothing_is_chosen(tmp_path: Path) -> None:
    metrics, targets = tried(tmp_path, valid=0)
    assert targets == json.loads((tmp_path / "tokens/targets.json").read_text())
    assert set(metrics["systems"]) == {
        *("model", "majority_of_each_label", "most_frequent_set", "neighbours", "probe", "tf-idf")
    }
