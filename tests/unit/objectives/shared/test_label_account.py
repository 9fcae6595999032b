from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hone.errors import DataError
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.regression import Regression
from hone.objectives.shared.label_account import check_not_joined, count_unseen_labels, name_labels
from hone.objectives.text_classification import TextClassification
from hone.sources.files import Files
from hone.sources.ingest import ingest


def run(objective: Any, *rows: dict[str, Any]) -> tuple[list[Any], dict[str, int]]:
    reader = objective.start_reading()
    return [reader.read(row) for row in rows], dict(reader.finish())


def test_an_empty_label_is_refused() -> None:
    for label in ("", "  ", "\t\n"):
        with pytest.raises(ValueError, match="label is empty"):
            TextClassification().normalize_row({"text": "a", "label": label})
        with pytest.raises(ValueError, match="label is not a number"):
            Regression().normalize_row({"text": "a", "label": label})


def test_labels_that_differ_by_outer_spaces_are_one_and_counted() -> None:
    rows = [{"text": "a", "label": label} for label in ("weather ", "weather", " weather\u00a0", "sport")]
    read, notes = run(TextClassification(), *rows)
    assert [row["label"] for row in read] == ["weather", "weather", "weather", "sport"]
    assert notes == {"labels without the spaces around them": 2}
    read, notes = run(MultiLabelClassification(), {"text": "a", "labels": ["joy ", "joy", "love"]})
    assert read[0]["labels"] == ["joy", "love"]
    assert notes == {"labels without the spaces around them": 1}


def test_labels_that_differ_by_case_alone_stay_and_are_reported() -> None:
    rows = [{"text": "a", "label": label} for label in ("Weather", "weather", "weather", "sport", "WEATHER")]
    read, notes = run(TextClassification(), *rows)
    assert [row["label"] for row in read][:2] == ["Weather", "weather"]
    assert notes == {
        "label 'WEATHER', which differs from 'weather' by case alone": 1,
        "label 'Weather', which differs from 'weather' by case alone": 1,
    }
    _, notes = run(MultiLabelClassification(), {"text": "a", "labels": ["Joy"]}, {"text": "b", "labels": ["joy"]})
    assert notes == {"label 'joy', which differs from 'Joy' by case alone": 1}


def test_several_labels_in_one_text_are_not_classes() -> None:
    draw = random.Random(5)
    labels = [",".join(map(str, sorted(draw.sample(range(28), draw.choice((1, 1, 2, 3)))))) for _ in range(2000)]
    with pytest.raises(DataError) as fault:
        run(TextClassification(), *({"text": "a", "label": label} for label in labels))
    message = str(fault.value)
    assert "are combinations of the same 28 labels, separated by ','" in message
    assert "multi-label-classification, separator: ','" in message
    _, notes = run(TextClassification(combined_labels=True), *({"text": "a", "label": label} for label in labels))
    assert notes == {}


@pytest.mark.parametrize(
    "labels",
    [
        ["Smith, John", "Doe, Jane", "Lee, Ann", "Berg, Alban"],
        ["Sci/Tech", "Sports", "World", "Sci", "Tech", "Sports/World"],
        ["a,b", "a", "b", "c"],
        ["Payments, cards", "Payments, refunds", "Payments, cash", "Other"],
        ["a|", "b|", "c|"],
    ],
)
def test_names_with_a_comma_in_them_are_classes(labels: list[str]) -> None:
    check_not_joined(labels)


def test_rows_with_labels_that_no_training_row_has_are_counted_not_their_labels() -> None:
    label_lists = {"valid": [["joy"], []], "test": [["fear", "rage"], ["joy", "rage"], ["rage"], ["joy"]]}
    splits = {name: pa.table({"labels": list(map(json.dumps, lists))}) for name, lists in label_lists.items()}
    counts = count_unseen_labels(MultiLabelClassification(), splits.__getitem__, {"labels": ["joy"]})
    assert counts == {"test": {"rage": 2, "fear, rage": 1}}
    assert counts["test"].total() == 3
    assert name_labels(counts["test"], 5) == "rage (2), fear, rage (1)"
    assert name_labels(counts["test"], 1) == "rage (2)"


def test_refused_and_folded_labels_are_in_the_account_of_the_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,weather \nb,weather\nc,\nd,sport\n")
    objective = TextClassification()
    reader = objective.start_reading()
    facts = ingest(
        Files(paths=[str(tmp_path / "a.csv")]),
        tmp_path,
        columns=objective.columns,
        rename={},
        keep=(),
        max_refused=0.5,
        shape=reader.read,
        finish=reader.finish,
    ).facts
    assert facts["reasons"] == {"label is empty": 1}
    assert facts["notes"] == {"labels without the spaces around them": 1}
