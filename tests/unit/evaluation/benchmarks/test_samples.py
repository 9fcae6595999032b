"""What lm-evaluation-harness 0.4.13 wrote for stories260K, read as one value for each document.

tests/fixtures/lm_eval/base is its output for that model and the tasks in tests/fixtures/lm_eval/tasks, damaged that for
the same model with noise on its weights; of results_*.json only what describes machine and paths is left out.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from hone.errors import ModelError
from hone.evaluation.benchmarks.samples import read_results

RECORDED = Path(__file__).parents[3] / "fixtures" / "lm_eval"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A copy of the recorded output, in a folder with the model's name as the harness makes it."""
    shutil.copytree(RECORDED / "base", tmp_path / "__models__stories260K")
    return tmp_path


def rewrite(file: Path, change: Any) -> None:
    samples = [json.loads(line) for line in file.read_text("utf8").splitlines()]
    file.write_text("".join(json.dumps(change(sample)) + "\n" for sample in samples), "utf8")


def test_each_metric_has_a_value_for_each_document_and_says_how_they_are_summed(output: Path) -> None:
    samples, summary = read_results(output)
    figures = {f"{figure['task']}/{figure['metric']}": figure for figure in summary["figures"]}
    assert {name: figure["aggregation"] for name, figure in figures.items()} == {
        "endings/exact_match.first-word": "mean",
        "endings/exact_match.as-is": "mean",
        "letters/acc": "mean",
        "letters/acc_norm": "mean",
        "tales/word_perplexity": "perplexity",
        "tales/bits_per_byte": "bits_per_byte",
    }
    assert figures["endings/exact_match.first-word"]["value"] == 0.6
    assert figures["endings/exact_match.as-is"]["value"] == 0.2
    assert [figures[name]["lower"] for name in ("letters/acc", "tales/bits_per_byte")] == [False, True]
    assert len(samples) == 6 * 5 == sum(figure["rows"] for figure in figures.values())
    # By hand: the log-likelihood and the words of each tale.
    words = samples.filter(pc.equal(samples["metric"], "word_perplexity"))
    assert words["doc"].to_pylist() == [0, 1, 2, 3, 4]
    total, weight = pc.sum(words["value"]).as_py(), pc.sum(words["weight"]).as_py()
    assert math.exp(-total / weight) == pytest.approx(25.1564, abs=1e-3)


def test_a_metric_of_a_whole_corpus_is_named_and_left_out(output: Path) -> None:
    assert read_results(output)[1]["left_out"] == ["endings/bleu.as-is", "endings/bleu.first-word"]


def test_pairs_of_classes_are_no_log_likelihoods_although_all_are_right(output: Path) -> None:
    """An F1 of 1, whose samples are (right class, predicted class), is the ratio of their sums as well."""
    [file], [results] = output.rglob("samples_letters_*"), output.rglob("results_*")
    rewrite(file, lambda sample: {**sample, "acc": [1, 1]})
    assert json.loads(results.read_text("utf8"))["results"]["letters"]["acc,none"] == 1.0
    assert "letters/acc" in read_results(output)[1]["left_out"]


def test_a_document_that_is_there_twice_cannot_be_joined(output: Path) -> None:
    [file] = output.rglob("samples_letters_*")
    rewrite(file, lambda sample: {**sample, "doc_id": 0})
    with pytest.raises(ModelError, match="task letters: has a document twice"):
        read_results(output)


def test_no_results_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wrote no results"):
        read_results(tmp_path)
