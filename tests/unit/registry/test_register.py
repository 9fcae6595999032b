"""What is registered, found again, and answers."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest

from hone.errors import ConfigError, DamagedVersion, ModelError
from hone.evaluation.report.headline import describe_verdict
from hone.evaluation.report.population import describe_population
from hone.evaluation.report.report_champion import Champion, Registered, compare_with_champion
from hone.evaluation.report.report_results import measured
from hone.methods.full import Full
from hone.methods.lora import Lora
from hone.models.locate import BaseModel
from hone.objectives.base import Objective
from hone.objectives.text_classification import TextClassification
from hone.promotion.rows import load_split
from hone.registry import card, run_record
from hone.registry import register as register_module
from hone.registry.champion_results import load_champion
from hone.registry.integrity import check_files, load_verified
from hone.store.artifact import Artifact
from hone.store.manifest import read_manifest, write_manifest
from hone.store.store import Store
from hone.tracking.client import connect
from hone.tracking.files import link_file
from hone.tracking.links import check_run_files, fetch_run_file, load_version_config, load_version_metrics
from hone.tracking.reader import describe_fault, get_version, has_run
from hone.tracking.run_log import open_run
from hone.tracking.version_tags import unfold_digests
from tests.registering import (
    assert_answers_as_evaluated,
    do_register,
    logged_model,
    place_of,
    pointed_to,
    predictions,
    predictions_file,
)
from tests.untrained_line import CONFIG, build_line


def test_the_files_of_a_version_take_their_space_once(tmp_path: Path, tracking_uri: str, base: BaseModel) -> None:
    artifacts = build_line(Store(tmp_path / "store"), base, Full())
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    weights = place_of(made) / "artifacts" / "model" / "model.safetensors"
    trained = artifacts["train"].path / "model" / "model.safetensors"
    assert weights.samefile(trained)
    run_files = Path(connect(tracking_uri).get_run(made["run_id"]).info.artifact_uri.removeprefix("file://"))
    for split in ("train", "valid", "test"):
        assert (run_files / "splits" / f"{split}.parquet").samefile(artifacts["validate"].path / f"{split}.parquet")
    # A change in one place would be one in both: nobody may write into either.
    assert not weights.stat().st_mode & 0o222
    # What is deleted in the store stays in MLflow.
    rmtree(artifacts["train"].path)
    check_files(tracking_uri, get_version(tracking_uri, made["model_uri"]))


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    stored, logged, newer = tmp_path / "stored", tmp_path / "mlflow" / "weights", tmp_path / "newer"
    stored.write_text("first")
    newer.write_text("second")
    link_file(stored, logged)
    link_file(newer, logged)
    assert (stored.read_text(), logged.read_text()) == ("first", "second")


def test_a_version_knows_where_it_comes_from(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    client = connect(tracking_uri)
    version = client.get_model_version_by_alias("tiny", "candidate")
    assert (str(version.version), version.run_id, made["existing"]) == ("1", made["run_id"], False)
    assert made["model_uri"] == "models:/tiny/1"
    tags = get_version(tracking_uri, "models:/tiny/1").tags
    assert tags["hone.data_digest"] == artifacts["validate"].digest
    assert tags["hone.model_digest"] == artifacts["train"].digest
    assert tags["hone.base_licence"] == "apache-2.0"
    assert tags["hone.git_commit"] == "abc123"
    assert {f"hone.{name}" for name in ("config_digest", "code_digest", "base_model", "flow_run_id")} <= set(tags)
    run = client.get_run(made["run_id"])
    assert [(given.dataset.name, given.tags[0].value) for given in run.inputs.dataset_inputs] == [
        ("tiny train", "train"),
        ("tiny valid", "validation"),
        ("tiny test", "test"),
    ]
    assert run.info.status == "FINISHED"
    assert [output.model_id for output in run.outputs.model_outputs] == [logged_model(made).model_id]
    assert json.loads(logged_model(made).tags["mlflow.modelVersions"]) == [{"name": "tiny", "version": 1}]
    assert {"test/accuracy", "test_majority/accuracy", "train/loss"} <= set(run.data.metrics)
    assert {file.path for file in client.list_artifacts(made["run_id"])} == {
        "report.html",
        "data_docs.html",
        "config.yaml",
        "metrics.json",
        "predictions.parquet",
        "test_figures.json",
        "statistics.json",
        "drift",
        "splits",
    }
    assert {file.path for file in client.list_artifacts(made["run_id"], "drift")} == {
        "drift/reference.parquet",
        "drift/row_hashes.npy",
    }
    assert tags["hone.rows_count"] == "31"
    assert len(tags["hone.rows_digest"]) == 64
    report = Path(client.download_artifacts(made["run_id"], "report.html", str(tmp_path)))
    for file in (report, tmp_path / "out" / "report.html"):
        assert file.read_text("utf8") == "<html>the report of version 1</html>"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_page_of_a_version_begins_with_the_verdict(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    tags = {"hone.flow_run_id": "flow-1", "hone.flow_run_url": "http://prefect/runs/flow-run/flow-1"}
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri, tags=tags)
    client = connect(tracking_uri)
    version = client.get_model_version("tiny", "1")
    metrics = json.loads((artifacts["evaluate"].path / "metrics.json").read_text("utf8"))
    assert version.description.startswith(f"**{describe_verdict(metrics)}**")
    lines = version.description.splitlines()
    assert [line.split("|")[1].replace("&emsp;", "").strip() for line in lines if line.startswith("|")][2:4] == [
        "**this version**",
        "most frequent class",
    ]
    report = f"#/experiments/{made['experiment_id']}/runs/{made['run_id']}/artifacts/report.html"
    assert f"[Report]({report}?workflowType=machine_learning)" in version.description
    assert "[Prefect run](http://prefect/runs/flow-run/flow-1)" in version.description
    assert "## How to use" in version.description
    assert len(version.description) <= 5000
    assert describe_verdict(metrics) in client.get_registered_model("tiny").description
    run = client.get_run(made["run_id"])
    assert run.data.tags["mlflow.note.content"].startswith(f"**{describe_verdict(metrics)}**")
    assert "[tiny version 1](#/models/tiny/versions/1" in run.data.tags["mlflow.note.content"]


def test_a_version_has_few_tags_and_the_verdict_among_them(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    do_register(tmp_path / "out", artifacts, base, tracking_uri)
    tags = connect(tracking_uri).get_model_version("tiny", "1").tags
    assert tags["hone.verdict"] in ("worth it", "not proven", "worse than a baseline")
    assert tags["hone.accuracy"].endswith("%")
    assert [name for name in tags if name.endswith(("_digest", "_sha256"))] == ["hone.rows_digest", "hone.files_sha256"]
    assert set(json.loads(tags["hone.digests"])) == {
        f"{name}_digest" for name in ("data", "config", "code", "base", "model")
    }
    assert not [name for name in tags if name.startswith("hone.test.")]
    assert len(tags) <= 13 and all(tags.values())


def test_the_model_is_shown_with_its_metrics_and_test_rows(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    run = connect(tracking_uri).get_run(made["run_id"])
    shown = {metric.key: metric for metric in logged_model(made).metrics}
    assert shown["test/accuracy"].value == run.data.metrics["test/accuracy"]
    assert {metric.dataset_name for metric in shown.values()} == {"tiny test"}
    assert "test_majority/accuracy" not in shown
    assert not [name for name in run.data.metrics if name.endswith(("_low", "_high"))]
    file = connect(tracking_uri).download_artifacts(made["run_id"], "test_figures.json", str(tmp_path))
    table = json.loads(Path(file).read_text("utf8"))
    assert table["columns"] == ["system", "metric", "value", "low", "high"]
    assert ["model", "accuracy"] in [row[:2] for row in table["data"]]


def test_the_figures_of_the_champion_are_beside_those_of_a_new_version(
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    adapted: Mapping[str, Artifact],
    base: BaseModel,
) -> None:
    client = connect(tracking_uri)
    do_register(tmp_path / "1", artifacts, base, tracking_uri)
    client.set_registered_model_alias("tiny", "champion", "1")
    evaluated, rows = adapted["evaluate"].path, adapted["validate"].path / "test.parquet"
    metrics = measured(json.loads((evaluated / "metrics.json").read_text("utf8")))
    comparisons = []

    def make_report(registered: Registered) -> str:
        answers = evaluated / "predictions.parquet"
        comparisons.append(compare_with_champion(registered, metrics, answers, rows, TextClassification()))
        return ""

    do_register(tmp_path / "2", adapted, base, tracking_uri, Lora(), render_report=make_report)
    description = client.get_model_version("tiny", "2").description
    assert "| [champion, version 1](#/models/tiny/versions/1?workflowType=machine_learning)" in description
    assert "from the same test rows" in description
    assert "champion, version" not in client.get_model_version("tiny", "1").description
    before, now = (predictions(line)["error"] for line in (artifacts, adapted))
    changed = [(a == 0, b == 0) for a, b in zip(before, now, strict=True)]
    counts = [changed.count((True, False)), changed.count((False, True))]
    [comparison] = comparisons
    assert [change["count"] for change in comparison["changes"]] == counts
    assert [len(change["examples"]) for change in comparison["changes"]] == [min(count, 10) for count in counts]
    assert sum(counts) > 0
    assert comparison["main"]["theirs"]["value"] == pytest.approx(before.count(0) / len(before))
    assert "[Version 2]" in client.get_registered_model("tiny").description


def test_the_report_is_made_for_the_version_with_its_alias_and_the_champion(
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    adapted: Mapping[str, Artifact],
    base: BaseModel,
) -> None:
    client = connect(tracking_uri)
    reports: list[tuple[Registered, bool]] = []

    def make_report(registered: Registered) -> str:
        answers = registered.champion.answers if registered.champion else None
        same = answers is not None and answers.read_bytes() == predictions_file(artifacts).read_bytes()
        reports.append((replace(registered, champion=None), same))
        return f"version {registered.version}"

    do_register(tmp_path / "1", artifacts, base, tracking_uri, render_report=make_report)
    client.set_registered_model_alias("tiny", "champion", "1")
    do_register(tmp_path / "2", adapted, base, tracking_uri, Lora(), render_report=make_report)
    do_register(tmp_path / "3", artifacts, base, tracking_uri, render_report=make_report)
    first, second = Registered("tiny", "1", "candidate"), Registered("tiny", "2", "candidate")
    assert reports == [(first, False), (second, True), (replace(first, alias=""), True)]


def test_the_answers_of_a_champion_are_read_only_for_the_same_rows(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    client = connect(tracking_uri)
    made = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    test, valid = (run_record.describe_split(artifacts["validate"], split) for split in ("test", "valid"))
    with_answers = load_champion(client, "tiny", "1", test, tmp_path)
    assert with_answers.same_rows and with_answers.answers and with_answers.metrics
    assert load_champion(client, "tiny", "1", valid, tmp_path) == replace(with_answers, same_rows=False, answers=None)
    client.delete_tag(made["run_id"], "hone.run_files")  # of an earlier release
    run = Path(client.get_run(made["run_id"]).info.artifact_uri.removeprefix("file:"))
    (run / "predictions.parquet").unlink()
    assert load_champion(client, "tiny", "1", test, tmp_path) == replace(with_answers, answers=None)
    (run / "metrics.json").unlink()
    assert load_champion(client, "tiny", "1", test, tmp_path) == Champion("1")


def test_a_version_of_an_earlier_release_is_brought_to_the_form_of_this_one(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    made = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    client = connect(tracking_uri)
    tags = client.get_model_version("tiny", "1").tags
    for name, value in unfold_digests(tags).items():
        client.set_model_version_tag("tiny", "1", name, value)
    client.set_model_version_tag("tiny", "1", "hone.config_digest", "as it was made")
    client.set_model_version_tag("tiny", "1", "hone.test.accuracy_low", "0.1")
    client.set_model_version_tag("tiny", "1", "team", "search")
    for name in ("hone.digests", "hone.verdict", "hone.accuracy"):
        client.delete_model_version_tag("tiny", "1", name)
    client.update_model_version("tiny", "1", "Ask Ada first.")
    do_register(tmp_path / "2", artifacts, base, tracking_uri)
    version = client.get_model_version("tiny", "1")
    assert version.tags == tags | {
        "team": "search",
        "hone.digests": version.tags["hone.digests"],
    }
    assert json.loads(version.tags["hone.digests"])["config_digest"] == "as it was made"
    assert version.description.startswith("**") and version.description.endswith("Ask Ada first.")
    history = client.get_metric_history(made["run_id"], "test/accuracy")
    assert len(history) == 1


def test_metrics_of_an_earlier_release_appear_with_the_model(
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hone.registry import register

    log = register.run_record.log_test_metrics  # type: ignore[attr-defined]

    def without_model(client: Any, run: Any, metrics: Any, dataset: Any, logged: Any) -> None:
        log(client, run, metrics, dataset, None)

    with monkeypatch.context() as patch:
        patch.setattr("hone.registry.run_record.log_test_metrics", without_model)
        made = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    assert not logged_model(made).metrics
    do_register(tmp_path / "2", artifacts, base, tracking_uri)
    assert "test/accuracy" in {metric.key for metric in logged_model(made).metrics}
    assert len(connect(tracking_uri).get_metric_history(made["run_id"], "test/accuracy")) == 1


def test_the_logged_model_is_safe_and_described(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    from huggingface_hub import ModelCard
    from mlflow.models import Model

    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    place = place_of(made)
    files = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    assert "artifacts/model/model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    described = Model.load(str(place / "MLmodel"))
    assert (described.run_id, described.model_id) == (made["run_id"], logged_model(made).model_id)
    assert described.signature.inputs.input_types()[0].name == "string"
    assert described.signature.outputs.input_names() == ["label", "score", "truncated"]
    assert described.load_input_example(str(place))["text"].tolist() == ["text"]
    requirements = (place / "requirements.txt").read_text("utf8").split()
    assert all("==" in line and "+" not in line for line in requirements)
    assert {line.partition("==")[0] for line in requirements} >= {"mlflow", "torch", "transformers", "tokenizers"}
    card = ModelCard.load(place / "artifacts" / "model" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert "near-duplicate \\| copy: 1" in card.text
    assert "## Bias, risks and limitations" in card.text
    assert "- Groups of rows were not compared (evaluation.groups)." in card.text
    assert artifacts["train"].digest in card.text
    sums = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place, check=False)
    assert sums.returncode == 0


def test_it_answers_in_a_process_without_hone_as_it_was_evaluated(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    assert_answers_as_evaluated(made, artifacts, clean=True, batch_size=3)


def test_a_new_version_is_described_once(
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its card, its example and its rows are in the model, on its page and in the run."""
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> None:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(name, call)

    counted("hone.registry.card.render_card", card.render_card)
    counted("hone.registry.run_record.describe_split", run_record.describe_split)
    counted("hone.registry.register.describe_population", describe_population)
    counted("hone.objectives.text_classification.TextClassification.inference_inputs", Objective.inference_inputs)
    do_register(tmp_path / "out", artifacts, base, tracking_uri)
    assert calls == {
        "hone.registry.card.render_card": 1,
        "hone.registry.run_record.describe_split": 3,
        "hone.registry.register.describe_population": 1,
        # The example; and the drift reference's samples of ingested and of held-out rows.
        "hone.objectives.text_classification.TextClassification.inference_inputs": 3,
    }


def test_registering_again_gives_the_version_there_is(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    first = do_register(tmp_path / "first", artifacts, base, tracking_uri)
    client = connect(tracking_uri)
    before = client.get_run(first["run_id"])
    again = do_register(tmp_path / "again", artifacts, base, tracking_uri)
    assert again == first | {"existing": True}
    assert len(client.search_model_versions("name='tiny'")) == 1
    assert len(client.search_logged_models([first["experiment_id"]])) == 1
    run = client.get_run(first["run_id"])
    assert len(run.inputs.dataset_inputs) == 3
    assert run.info.end_time == before.info.end_time
    for name in ("train/loss", "valid/loss", "test/accuracy"):
        steps = [metric.step for metric in client.get_metric_history(first["run_id"], name)]
        assert len(steps) == len(set(steps)) > 0


def test_a_version_that_was_deleted_is_no_longer_there_and_another_takes_its_place(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    assert describe_fault(tracking_uri, "tiny", "1")
    do_register(tmp_path / "1", artifacts, base, tracking_uri)
    assert not describe_fault(tracking_uri, "tiny", "1")
    client = connect(tracking_uri)
    client.delete_model_version("tiny", "1")
    assert describe_fault(tracking_uri, "tiny", "1")
    again = do_register(tmp_path / "2", artifacts, base, tracking_uri)
    assert not describe_fault(tracking_uri, "tiny", again["version"])
    client.delete_registered_model("tiny")
    assert describe_fault(tracking_uri, "tiny", again["version"])
    assert describe_fault(f"sqlite:///{tmp_path}/nothing.db", "tiny", "1")


def test_a_run_that_was_deleted_is_made_again_with_its_curves_and_another_version_is_of_it(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    client = connect(tracking_uri)
    first = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    assert has_run(tracking_uri, first["run_id"])
    client.delete_run(first["run_id"])
    assert not has_run(tracking_uri, first["run_id"]) and not has_run(tracking_uri, "0" * 32)
    again = do_register(tmp_path / "2", artifacts, base, tracking_uri)
    assert (again["version"], again["existing"]) == ("2", False) and again["run_id"] != first["run_id"]
    # All that a promotion reads is there again.
    run = client.get_run(again["run_id"])
    assert len(client.get_metric_history(again["run_id"], "train/loss")) == 6 and "test/accuracy" in run.data.metrics
    assert {file.path for file in client.list_artifacts(again["run_id"], "splits")} == {
        "splits/test.parquet",
        "splits/train.parquet",
        "splits/valid.parquet",
    }
    # Registered once more, nothing is new.
    assert do_register(tmp_path / "3", artifacts, base, tracking_uri)["version"] == "2"


@pytest.mark.parametrize("deleted_after", ["log_artifact", "create_logged_model"])
def test_a_run_that_is_deleted_during_the_registration_fails_it_and_a_retry_succeeds(
    deleted_after: str,
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    step = getattr(MlflowClient, deleted_after)

    def delete_then_step(self: MlflowClient, *given: Any, **named: Any) -> Any:
        patch.setattr(MlflowClient, deleted_after, step)
        [run] = self.search_runs([self.get_experiment_by_name("hone").experiment_id])
        self.delete_run(run.info.run_id)
        return step(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, deleted_after, delete_then_step)
        with pytest.raises(MlflowException, match="active"):
            do_register(tmp_path / "failed", artifacts, base, tracking_uri)
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    assert made["version"] == "1" and has_run(tracking_uri, made["run_id"])
    assert_answers_as_evaluated(made, artifacts)


def test_a_lost_alias_comes_back_and_one_that_points_elsewhere_stays(
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    adapted: Mapping[str, Artifact],
    base: BaseModel,
) -> None:
    client = connect(tracking_uri)
    do_register(tmp_path / "1", artifacts, base, tracking_uri)
    client.delete_registered_model_alias("tiny", "candidate")
    do_register(tmp_path / "2", artifacts, base, tracking_uri)
    assert pointed_to(client) == "1"
    assert do_register(tmp_path / "3", adapted, base, tracking_uri, Lora())["version"] == "2"
    do_register(tmp_path / "4", artifacts, base, tracking_uri)
    assert pointed_to(client) == "2"


@pytest.mark.parametrize("lost", [False, True])
def test_a_damaged_version_is_registered_anew(
    lost: bool, tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    client = connect(tracking_uri)
    first = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    file = next(place_of(first).rglob("tokenizer.json"))
    if lost:  # after the model, before the version
        client.delete_model_version("tiny", "1")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.unlink()  # not the file of the store, which is the same one
    file.write_bytes(content)
    if not lost:
        with pytest.raises(ModelError, match=r"tokenizer\.json"):
            check_files(tracking_uri, get_version(tracking_uri, "models:/tiny/1"))
        assert "tokenizer.json" in describe_fault(tracking_uri, "tiny", "1")
    again = do_register(tmp_path / "2", artifacts, base, tracking_uri)
    assert (again["existing"], pointed_to(client)) == (False, again["version"])
    check_files(tracking_uri, get_version(tracking_uri, again["model_uri"]))
    assert do_register(tmp_path / "3", artifacts, base, tracking_uri) == again | {"existing": True}
    assert len(client.search_logged_models([first["experiment_id"]])) == 2


def test_a_version_whose_files_were_put_back_is_damaged_no_longer(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    file = place_of(do_register(tmp_path / "1", artifacts, base, tracking_uri)) / "MLmodel"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content + b" ")
    with pytest.raises(ModelError, match="MLmodel"):
        check_files(tracking_uri, get_version(tracking_uri, "models:/tiny/1"))
    assert describe_fault(tracking_uri, "tiny", "1").startswith("the files of version 1 of tiny are damaged: MLmodel")
    file.write_bytes(content)
    check_files(tracking_uri, get_version(tracking_uri, "models:/tiny/1"))
    assert not describe_fault(tracking_uri, "tiny", "1")


@pytest.mark.parametrize("lost_after", ["create_logged_model", "log_model_directory", "finalize_logged_model"])
def test_an_interrupted_registration_is_completed_not_doubled(
    lost_after: str,
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    owner = MlflowClient if hasattr(MlflowClient, lost_after) else register_module
    step = getattr(owner, lost_after)

    def killed(*given: Any, **named: Any) -> None:
        step(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, lost_after, killed)
        with pytest.raises(KeyboardInterrupt):
            do_register(tmp_path / "killed", artifacts, base, tracking_uri)
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    client = connect(tracking_uri)
    assert len(client.search_logged_models([made["experiment_id"]])) == 1
    assert [str(version.version) for version in client.search_model_versions("name='tiny'")] == ["1"]
    assert made["existing"] is False
    assert_answers_as_evaluated(made, artifacts)


def test_a_version_whose_registration_was_interrupted_gets_its_report_and_then_the_alias(
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    adapted: Mapping[str, Artifact],
    base: BaseModel,
) -> None:
    client = connect(tracking_uri)
    do_register(tmp_path / "1", artifacts, base, tracking_uri)

    def killed(registered: Registered) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_register(tmp_path / "killed", adapted, base, tracking_uri, Lora(), render_report=killed)
    version = client.get_model_version("tiny", "2")
    assert pointed_to(client) == "1" and not version.description
    assert "report.html" not in {file.path for file in client.list_artifacts(version.run_id)}
    made = do_register(tmp_path / "2", adapted, base, tracking_uri, Lora())
    assert (made["version"], made["existing"], pointed_to(client)) == ("2", False, "2")
    assert client.get_model_version("tiny", "2").description
    assert "report.html" in {file.path for file in client.list_artifacts(version.run_id)}


@pytest.mark.parametrize("killed_after", ["create_model_version", "update_model_version", "set_registered_model_alias"])
def test_a_second_version_whose_registration_was_killed_has_the_alias_after_the_next_one(
    killed_after: str,
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    adapted: Mapping[str, Artifact],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    client, step = connect(tracking_uri), getattr(MlflowClient, killed_after)
    do_register(tmp_path / "1", artifacts, base, tracking_uri)

    def killed(*arguments: Any, **options: Any) -> None:
        step(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, killed_after, killed)
        with pytest.raises(KeyboardInterrupt):
            do_register(tmp_path / "killed", adapted, base, tracking_uri, Lora())
    made = do_register(tmp_path / "2", adapted, base, tracking_uri, Lora())
    assert (made["version"], made["existing"], pointed_to(client)) == ("2", False, "2")
    assert len(client.search_model_versions("name='tiny'")) == 2
    assert json.loads(logged_model(made).tags["mlflow.modelVersions"]) == [{"name": "tiny", "version": 2}]
    assert "hone.unfinished" not in client.get_model_version("tiny", "2").tags
    # It is complete now: registered once more, an alias that points elsewhere stays there.
    client.set_registered_model_alias("tiny", "candidate", "1")
    assert do_register(tmp_path / "3", adapted, base, tracking_uri, Lora())["existing"] is True
    assert pointed_to(client) == "1"


def test_a_logged_model_keeps_the_versions_that_it_is_linked_to(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    """One logged model is registered under two names."""
    first = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    do_register(tmp_path / "2", artifacts, base, tracking_uri, model_name="other")
    links = [{"name": "tiny", "version": 1}, {"name": "other", "version": 1}]
    assert json.loads(logged_model(first).tags["mlflow.modelVersions"]) == links


def run_file(uri: str, version: str, path: str) -> Path:
    """The file among those of the version's run in MLflow, writable."""
    client = connect(uri)
    run = client.get_run(client.get_model_version("tiny", version).run_id)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / path
    file.chmod(0o600)
    return file


OTHER_CONFIG = f"{CONFIG}other: 1\n"
RUN_FILES = {
    "config.yaml": load_version_config,
    "metrics.json": load_version_metrics,
    "splits/test.parquet": lambda uri, version: load_split(uri, version, "test"),
    "drift/row_hashes.npy": lambda uri, version: fetch_run_file(uri, version, "drift", Path(mkdtemp())),
}


@pytest.mark.parametrize("damage", ["a bit", "cut", "missing"])
@pytest.mark.parametrize("path", RUN_FILES)
def test_a_damaged_file_of_a_run_is_one_error_until_the_next_registration(
    path: str, damage: str, tmp_path: Path, tracking_uri: str, base: BaseModel
) -> None:
    artifacts = build_line(Store(tmp_path / "store"), base, Full())
    do_register(tmp_path / "1", artifacts, base, tracking_uri)
    version, read = get_version(tracking_uri, "models:/tiny/1"), RUN_FILES[path]
    read(tracking_uri, version)
    file = run_file(tracking_uri, "1", path)
    whole = file.read_bytes()
    file.unlink()  # not the file of the store, which may be the same one
    if damage != "missing":
        file.write_bytes(whole[:-1] if damage == "cut" else whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(DamagedVersion, match=path) as fault:
        read(tracking_uri, version)
    assert "hone run" in fault.value.fix
    with pytest.raises(DamagedVersion, match=path):
        check_run_files(tracking_uri, version)
    assert path in describe_fault(tracking_uri, "tiny", "1")
    assert do_register(tmp_path / "2", artifacts, base, tracking_uri)["version"] == "1"
    read(tracking_uri, version)
    check_run_files(tracking_uri, version)
    assert file.read_bytes() == whole and not describe_fault(tracking_uri, "tiny", "1")


def test_a_missing_folder_of_a_run_is_damage_too(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    do_register(tmp_path / "1", artifacts, base, tracking_uri)
    rmtree(run_file(tracking_uri, "1", "drift/row_hashes.npy").parent)
    with pytest.raises(DamagedVersion, match="drift is missing"):
        fetch_run_file(tracking_uri, get_version(tracking_uri, "models:/tiny/1"), "drift", tmp_path)
    assert "drift" in describe_fault(tracking_uri, "tiny", "1")


def test_files_of_an_earlier_release_are_read_unproven_and_nonsense_is_one_error(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    made = do_register(tmp_path / "1", artifacts, base, tracking_uri)
    connect(tracking_uri).delete_tag(made["run_id"], "hone.run_files")
    version = get_version(tracking_uri, "models:/tiny/1")
    metrics = run_file(tracking_uri, "1", "metrics.json")
    metrics.write_text('{"systems": {}}')
    assert load_version_metrics(tracking_uri, version) == {"systems": {}}
    for content in (b"{", b"\xff", b"[1]", b""):
        metrics.write_bytes(content)
        with pytest.raises(DamagedVersion, match=r"metrics\.json cannot be read"):
            load_version_metrics(tracking_uri, version)
    configuration = run_file(tracking_uri, "1", "config.yaml")
    for content in (b"a: [", b"\xff", b"text", b""):
        configuration.write_bytes(content)
        with pytest.raises(DamagedVersion, match=r"config\.yaml cannot be read"):
            load_version_config(tracking_uri, version)
    rows = run_file(tracking_uri, "1", "splits/test.parquet")
    rows.unlink()
    rows.write_bytes(b"PAR1 no PAR1")
    with pytest.raises(DamagedVersion, match=r"splits/test\.parquet cannot be read"):
        load_split(tracking_uri, version, "test")


def test_two_versions_of_one_run_can_both_be_read(
    tmp_path: Path, tracking_uri: str, adapted: Mapping[str, Artifact], base: BaseModel
) -> None:
    """The second registration logs its own configuration in the run of both."""
    do_register(tmp_path / "1", adapted, base, tracking_uri, Lora())
    do_register(tmp_path / "2", adapted, base, tracking_uri, Lora(merged=False), config=OTHER_CONFIG)
    for number in "12":
        version = get_version(tracking_uri, f"models:/tiny/{number}")
        check_run_files(tracking_uri, version)
        assert load_version_config(tracking_uri, version)["other"] == 1


def test_a_registration_that_was_killed_while_it_replaced_a_file_leaves_none_that_looks_damaged(
    tmp_path: Path,
    tracking_uri: str,
    adapted: Mapping[str, Artifact],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    do_register(tmp_path / "1", adapted, base, tracking_uri, Lora())

    def killed(self: MlflowClient, run_id: str, file: str, folder: str | None = None) -> None:
        log_artifact(self, run_id, file, folder)
        if file.endswith("config.yaml"):
            raise KeyboardInterrupt

    log_artifact = MlflowClient.log_artifact
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", killed)
        with pytest.raises(KeyboardInterrupt):
            do_register(tmp_path / "2", adapted, base, tracking_uri, Lora(merged=False), config=OTHER_CONFIG)
    version = get_version(tracking_uri, "models:/tiny/1")
    check_run_files(tracking_uri, version)
    assert load_version_config(tracking_uri, version)["other"] == 1


@pytest.mark.parametrize("path", ["metrics.json", "predictions.parquet"])
def test_a_champion_with_damaged_results_stops_no_registration(
    path: str,
    tmp_path: Path,
    tracking_uri: str,
    artifacts: Mapping[str, Artifact],
    adapted: Mapping[str, Artifact],
    base: BaseModel,
) -> None:
    do_register(tmp_path / "1", artifacts, base, tracking_uri)
    connect(tracking_uri).set_registered_model_alias("tiny", "champion", "1")
    file = run_file(tracking_uri, "1", path)
    file.write_bytes(file.read_bytes()[:-1])
    made = do_register(tmp_path / "2", adapted, base, tracking_uri, Lora())
    assert made["version"] == "2"
    [warning] = made["warnings"]
    assert path in warning and "models:/tiny/1" in warning


@pytest.mark.parametrize("merged", [True, False])
def test_lora_answers_merged_and_as_an_adapter(
    merged: bool, tmp_path: Path, tracking_uri: str, adapted: Mapping[str, Artifact], base: BaseModel
) -> None:
    made = do_register(tmp_path / "out", adapted, base, tracking_uri, Lora(merged=merged))
    weights = [file.name for file in place_of(made).rglob("*.safetensors")]
    assert weights == (["model.safetensors"] if merged else ["adapter_model.safetensors"])
    assert_answers_as_evaluated(made, adapted, clean=not merged)


def test_merged_and_adapter_are_two_versions(
    tmp_path: Path, tracking_uri: str, adapted: Mapping[str, Artifact], base: BaseModel
) -> None:
    versions = [
        do_register(tmp_path / str(merged), adapted, base, tracking_uri, Lora(merged=merged))["version"]
        for merged in (True, False, True)
    ]
    assert versions == ["1", "2", "1"]


def test_an_adapter_refuses_a_base_it_was_not_tuned_on(
    tmp_path: Path, tracking_uri: str, adapted: Mapping[str, Artifact], base: BaseModel
) -> None:
    import shutil

    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    made = do_register(tmp_path / "out", adapted, base, tracking_uri, Lora(merged=False))
    other = tmp_path / "other"
    shutil.copytree(base.path, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises((ValueError, MlflowException), match="is not the file of"):
        load_model(str(place_of(made)), model_config={"base": str(other)})
    with pytest.raises((ValueError, MlflowException), match="does not have"):
        load_model(str(place_of(made)), model_config={"base": str(tmp_path)})
    moved = tmp_path / "moved"
    shutil.copytree(base.path, moved)
    assert_answers_as_evaluated(made, adapted, base=str(moved))


def test_wrong_input_is_refused_by_name(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    import pandas as pd
    from mlflow.pyfunc import load_model

    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    model = load_model(str(place_of(made)))
    with pytest.raises(ValueError, match="there is no column 'text' but 'id'"):
        model.predict(pd.DataFrame({"id": ["a"], "text": ["late parcel"]}))
    with pytest.raises(ValueError, match="row 1 is not a text"):
        model.predict(pd.DataFrame({"text": ["late parcel", None]}))
    with pytest.raises(ValueError, match=r"row 1 has 1,000,001 characters, more than 1,000,000.*max_characters"):
        model.predict(pd.DataFrame({"text": ["late parcel", "a" * 1_000_001]}))
    assert model.predict(pd.Series(["late parcel"])).columns.tolist() == ["label", "score", "truncated"]
    assert len(model.predict(pd.DataFrame({"text": pd.Series([], dtype=str)}))) == 0


def test_the_limit_of_a_row_can_be_set(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    """Batch prediction and monitoring answer rows of any length."""
    from mlflow.pyfunc import load_model

    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    with pytest.raises(ValueError, match="row 0 has 11 characters, more than 10"):
        load_model(str(place_of(made)), model_config={"max_characters": 10}).predict(["late parcel"])
    version = get_version(tracking_uri, f"models:/{made['model']}/{made['version']}")
    model, directory = load_verified(tracking_uri, version)
    assert directory == place_of(made)
    assert len(model.predict(["late parcel " * 100_000])) == 1


def test_pickled_weights_are_not_registered(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    import shutil

    from hone.errors import ModelError

    copy = tmp_path / "train"
    shutil.copytree(artifacts["train"].path, copy)
    manifest = read_manifest(copy)
    manifest["files"]["model/pytorch_model.bin"] = {"bytes": 1, "sha256": "0" * 64}
    write_manifest(copy, manifest)
    (copy / "model" / "pytorch_model.bin").write_bytes(b"x")
    line = dict(artifacts) | {"train": replace(artifacts["train"], uri=str(copy))}
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        do_register(tmp_path / "out", line, base, tracking_uri)
    assert not connect(tracking_uri).search_model_versions("name='tiny'")


@pytest.mark.parametrize("example_row", [False, True])
def test_a_test_row_is_in_the_model_only_where_that_is_asked_for(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel, example_row: bool
) -> None:
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri, example_row=example_row)
    texts, place = predictions(artifacts)["text"], place_of(made)
    files = [file.read_text("utf8") for name in ("*.md", "*.json", "MLmodel") for file in place.rglob(name)]
    assert len(files) > 4
    assert any(text in file for text in texts for file in files) == example_row
    version = connect(tracking_uri).get_model_version("tiny", made["version"])
    assert any(text in version.description for text in texts) == example_row


def test_a_name_that_mlflow_does_not_take(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    with pytest.raises(ConfigError, match=r"registration\.model 'a/b'"):
        do_register(tmp_path / "out", artifacts, base, tracking_uri, model_name="a/b")


def test_curves_that_mlflow_missed_come_from_the_history(
    tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel
) -> None:
    about = {"experiment": "hone", "name": "tiny", "key": artifacts["train"].key, "params": {}, "tags": {}}
    run = open_run(tracking_uri, **about)
    run.hear({"type": "step", "step": 2, "loss": 0.5})
    run.finish("KILLED")
    made = do_register(tmp_path / "out", artifacts, base, tracking_uri)
    assert made["run_id"] == run.run_id
    client = connect(tracking_uri)
    history = client.get_metric_history(run.run_id, "train/loss")
    assert sorted((metric.step, round(metric.value, 3)) for metric in history) == [
        (step, round(1 / step, 3)) for step in range(1, 7)
    ]
    assert [metric.step for metric in client.get_metric_history(run.run_id, "valid/accuracy")] == [3, 6]
