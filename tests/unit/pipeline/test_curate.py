"""The settings of a configuration's section `curation`, through the stage that follows them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.config.file import parse_config
from hone.curation.account import describe_groups
from hone.environment import Home
from hone.errors import DataError, ValidationFailed
from hone.evaluation.report.population import describe_population
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES
from hone.splits import FLAW
from hone.store.artifact import Artifact


def curate(folder: Path, splits: list[str], **curation: Any) -> Artifact:
    """The artifact of rows of which four of ten are the same, with these splits by turns."""
    texts = [f"text number {i} {i * 7919}" if i % 10 < 6 else "always the same text" for i in range(100)]
    lines = [f"{text},{'ab'[i % 2]},{splits[i % len(splits)]}" for i, text in enumerate(texts)]
    return run(folder, lines, **curation)


def run(folder: Path, lines: list[str], **curation: Any) -> Artifact:
    """The artifact of rows in lines of text, label and split."""
    (folder / "rows.csv").write_text("\n".join(["text,label,split", *lines]))
    tree = {
        "name": "moods",
        "ingest": {"source": {"kind": "files", "paths": [str(folder / "rows.csv")]}},
        "curation": {"steps": [{"kind": "duplicates"}], **curation},
        "model": {"base": "not read"},
    }
    config, home = parse_config(tree), Home(folder / "home")
    return run_stage("curate", Job(config, {"ingest": run_stage("ingest", Job(config, {}, home))}, home))


def test_held_out_rows_are_dropped_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    splits = ["train", "train", "train", "test", "test"]
    artifact = curate(tmp_path, splits)
    assert artifact.facts()["splits"]["test"] == artifact.facts()["given"]["test"] == 40
    artifact = curate(tmp_path, splits, held_out="curate")
    texts = pq.read_table(artifact.path / "test.parquet")["text"].to_pylist()
    assert Counter(texts)["always the same text"] == 2  # one of each label
    assert artifact.facts()["given"]["test"] == 40 > artifact.facts()["splits"]["test"] == len(texts)
    assert FLAW not in pq.read_schema(artifact.path / "test.parquet").names


def test_a_step_may_drop_the_share_that_the_configuration_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    excess = "duplicates drops 38 of 100 rows (38%; curation.max_dropped is {})"
    with caplog.at_level(logging.WARNING):
        curate(tmp_path, [""], max_dropped=0.38)
        assert not caplog.text
        curate(tmp_path, [""])
        assert excess.format("20%") in caplog.text
        curate(tmp_path, [""], max_dropped=0.3)
        assert excess.format("30%") in caplog.text
        curate(tmp_path, [""], max_dropped=0.38, on_excess="stop")
    with pytest.raises(DataError, match="duplicates drops 38 of 100 rows"):
        curate(tmp_path, [""], max_dropped=0.3, on_excess="stop")


def test_the_largest_group_of_similar_rows_is_reported_and_a_divided_one_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Each is like the next, the last unlike the first; no words are in so many rows that they do not count.
    texts = [" ".join(f"word{i}" for i in range(4 * first, 4 * first + 40)) for first in range(60)]
    texts += [f"text {i} {i * 7919} {i * 104729}" for i in range(260)] + ["three rows with one text"] * 3

    def split(texts: list[str]) -> Artifact:
        return run(tmp_path, [f"{text},{'ab'[i % 2]}," for i, text in enumerate(texts)], steps=[])

    with caplog.at_level(logging.WARNING):
        artifact = split(texts[60:])
    assert artifact.facts()["groups"] == {"rows": 263, "largest": 3, "divided": 0}
    assert describe_groups(artifact.facts()["groups"]) == "the largest group of similar rows has 3 of 263 rows"
    assert not caplog.text and not STAGES["curate"].list_warnings(artifact)
    with caplog.at_level(logging.WARNING):
        artifact = split(texts)
    groups = artifact.facts()["groups"]
    assert (groups["rows"], groups["divided"]) == (323, 60) and groups["largest"] < 60
    [warning] = STAGES["curate"].list_warnings(artifact)
    assert warning.startswith("split: 60 of 323 rows are each similar to another of them") and warning in caplog.text
    assert describe_groups({}) == ""  # an artifact of an earlier release


ONE, OTHER, LATE = "one", "other", "late"
LABELLED: dict[str, tuple[str, Callable[[str], Any]]] = {
    "text-classification": ("label", lambda label: label),
    "multi-label-classification": ("labels", lambda label: [label]),
    "token-classification": ("tags", lambda label: [f"B-{label}", "O", "O", "O"]),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_a_class_that_decontamination_empties_is_named_from_there_on(
    kind: str, base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    column, build_answer = LABELLED[kind]
    draw = Random(5)

    def row(label: str, split: str) -> dict[str, Any]:
        words = draw.sample(range(10_000), 4)
        text = [f"word{number}" for number in words]
        given = {"tokens": text} if kind == "token-classification" else {"text": " ".join(text)}
        return {**given, column: build_answer(label), "split": split}

    late = row(LATE, "test")
    rows = [
        row(label, split) for split, count in (("train", 20), ("dev", 5), ("test", 5)) for label in [ONE, OTHER] * count
    ]
    rows += [late, late | {"split": "train"}]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tree: dict[str, Any] = {
        "name": "moods",
        "objective": {"kind": kind},
        "ingest": {"source": {"kind": "files", "paths": [str(tmp_path / "rows.jsonl")]}},
        "model": {"base": str(base_model)},
        "validation": {"unseen_labels": "stop"},
    }
    emptied = f"decontaminate drops all training rows with the labels {LATE}"
    home = Home(tmp_path / "home")
    config = parse_config(tree)
    artifacts: dict[str, Artifact] = {}
    with caplog.at_level(logging.WARNING):
        for stage in ("ingest", "curate"):
            artifacts[stage] = run_stage(stage, Job(config, artifacts, home))
    assert emptied in caplog.text
    assert STAGES["curate"].list_warnings(artifacts["curate"]) == [emptied]
    with pytest.raises(ValidationFailed, match=emptied):
        run_stage("validate", Job(config, artifacts, home))
    config = parse_config(tree | {"validation": {}})
    for stage in ("validate", "tokenize"):
        artifacts[stage] = run_stage(stage, Job(config, artifacts, home))
    [warning] = STAGES["tokenize"].list_warnings(artifacts["tokenize"])
    assert warning == f"test: 1 rows count as errors; no training row has their labels: {LATE} (1); {emptied}"
    assert warning in caplog.text
    facts = {stage: artifact.facts() for stage, artifact in artifacts.items()} | {"train": {}}
    sentences = describe_population(facts, {"main_metric": "x", "measures": {"x": {"share": False}}})
    assert "Decontaminate drops all training rows with the labels late." in sentences
