"""One run for one training, each step in its curve once."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError
from hone.tracking.client import (
    check_tracking_uri,
    connect,
    create_sqlite_store,
    default_tracking_uri,
    get_or_create_experiment,
)
from hone.tracking.run_log import (
    Curve,
    Outcome,
    RunLog,
    _count_samples,
    as_metrics,
    backfill,
    open_run,
    take,
    training_run,
)


def opened(uri: str, key: str = "k1", **other: Any) -> RunLog:
    about: dict[str, Any] = {"experiment": "hone", "name": "tiny", "key": key, "params": {}, "tags": {}}
    return open_run(uri, **(about | other))


def step(number: int) -> dict[str, Any]:
    return {"type": "step", "step": number, "loss": 1 / number, "learning_rate": 0.1, "grad_norm": float("nan")}


def curve(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in connect(uri).get_metric_history(run_id, name))


def test_a_resumed_training_goes_on_in_its_run(tracking_uri: str) -> None:
    killed = opened(tracking_uri, params={"training.epochs": 2}, tags={"hone.git_commit": "old"})
    for number in range(1, 8):
        killed.hear(step(number))
    killed.hear({"type": "valid", "step": 5, "valid_loss": 0.5, "valid_accuracy": 0.25})
    killed.finish("KILLED")
    resumed = opened(tracking_uri, params={"training.epochs": 2}, tags={"hone.git_commit": "new"})
    assert resumed.run_id == killed.run_id
    resumed.hear({"type": "resumed", "step": 4})
    for number in range(5, 11):
        resumed.hear(step(number))
    resumed.hear({"type": "valid", "step": 5, "valid_loss": 0.5, "valid_accuracy": 0.25})
    resumed.hear({"type": "valid", "step": 10, "valid_loss": 0.25, "valid_accuracy": 0.5})
    resumed.finish("FINISHED")
    assert curve(tracking_uri, killed.run_id, "train/loss") == [(n, 1 / n) for n in range(1, 11)]
    assert curve(tracking_uri, killed.run_id, "valid/accuracy") == [(5, 0.25), (10, 0.5)]
    run = connect(tracking_uri).get_run(killed.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.epochs": "2"}
    assert run.data.tags["hone.git_commit"] == "new"
    assert run.data.tags["hone.resumed.step"] == "4"


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("KILLED", "FINISHED", "FINISHED"),
        ("FAILED", "FINISHED", "FINISHED"),
        ("FINISHED", "FAILED", "FINISHED"),
        ("KILLED", "FAILED", "KILLED"),
    ],
)
def test_a_training_without_steps_left_finishes_its_run(
    first: Outcome, second: Outcome, status: str, tracking_uri: str
) -> None:
    begun = opened(tracking_uri)
    begun.hear(step(1))
    begun.finish(first)
    opened(tracking_uri).finish(second)
    assert connect(tracking_uri).get_run(begun.run_id).info.status == status


def test_a_run_has_a_description_a_user_and_a_source(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    run_log = opened(tracking_uri, params={"model.base": "org/small", "method.kind": "lora"})
    run = connect(tracking_uri).get_run(run_log.run_id)
    assert run.info.user_id == "ada"
    assert run.data.tags["mlflow.source.name"] == "hone run tiny"
    assert "lora" in run.data.tags["mlflow.note.content"] and "org/small" in run.data.tags["mlflow.note.content"]


def test_what_only_the_machine_needs_is_out_of_sight(tracking_uri: str) -> None:
    run_log = opened(tracking_uri)
    run_log.hear({"type": "started", "pid": 4711, "device": "cpu, 2 threads", "resumed_from": []})
    run_log.hear(step(1))
    run_log.finish("FINISHED")
    tags = connect(tracking_uri).get_run(run_log.run_id).data.tags
    assert tags["hone.started.device"] == "cpu, 2 threads"
    assert not {"hone.started.pid", "hone.started.resumed_from"} & set(tags)


def test_steps_done_again_after_out_of_memory_are_logged_once(tracking_uri: str) -> None:
    run = opened(tracking_uri)
    for number in (1, 2, 3, 2, 3, 4):
        run.hear(step(number))
    run.finish("FINISHED")
    assert curve(tracking_uri, run.run_id, "train/loss") == [(n, 1 / n) for n in range(1, 5)]


def test_another_key_or_a_deleted_run_is_another_run(tracking_uri: str) -> None:
    first, other = opened(tracking_uri, "k1"), opened(tracking_uri, "k2")
    connect(tracking_uri).delete_run(first.run_id)
    again = opened(tracking_uri, "k1")
    assert len({first.run_id, other.run_id, again.run_id}) == 3


def test_a_changed_param_keeps_its_first_value(tracking_uri: str) -> None:
    opened(tracking_uri, params={f"p{n}": n for n in range(150)})
    run = opened(tracking_uri, params={f"p{n}": -n for n in range(151)})
    params = connect(tracking_uri).get_run(run.run_id).data.params
    assert len(params) == 151
    assert (params["p7"], params["p150"]) == ("7", "-150")


def test_the_machine_is_watched_while_training(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    published = threading.Event()
    publish = SystemMetricsMonitor.publish_metrics

    def and_say_so(monitor: Any, metrics: Any) -> None:
        publish(monitor, metrics)
        published.set()

    monkeypatch.setattr(SystemMetricsMonitor, "publish_metrics", and_say_so)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    run = opened(tracking_uri)
    run.hear(step(1))
    assert published.wait(60)
    run.finish("FINISHED")
    metrics = connect(tracking_uri).get_run(run.run_id).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(metrics)


class Terminated(BaseException):
    """As Prefect's signal for a run that is cancelled: no Exception, and none of Python's own."""


@pytest.mark.parametrize(
    ("fault", "status"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (Terminated, "KILLED")],
)
def test_the_run_ends_as_the_block_does(fault: type[BaseException] | None, status: str, tracking_uri: str) -> None:
    about = {"experiment": "hone", "name": "tiny", "key": "k", "params": {}, "tags": {}}
    try:
        with training_run(tracking_uri, **about) as run:
            run.hear(step(1))
            if fault:
                raise fault
    except (ValueError, KeyboardInterrupt, Terminated):
        pass
    assert connect(tracking_uri).get_run(run.run_id).info.status == status


def test_what_mlflow_missed_is_filled_in_once(tracking_uri: str, tmp_path: Path) -> None:
    lines = [{"step": n, "loss": 1 / n} for n in range(1, 2001)] + [{"step": 9, "valid_loss": 2.0}]
    history = tmp_path / "history.jsonl"
    history.write_text("\n".join(map(json.dumps, lines)), "utf8")
    run = opened(tracking_uri)
    for number in (1, 2, 1999):
        run.hear(step(number))
    run.finish("FINISHED")
    client = connect(tracking_uri)
    assert backfill(client, run.run_id, history) == 500
    assert backfill(client, run.run_id, history) == 0
    steps = [1, 2, *range(4, 1996, 4), 1999, 2000]  # of each four steps the first that was logged, and the last
    assert curve(tracking_uri, run.run_id, "train/loss") == [(n, 1 / n) for n in steps]
    assert curve(tracking_uri, run.run_id, "valid/loss") == [(9, 2.0)]


@pytest.mark.parametrize("total", [1, 7, 500, 501, 2400, 1_000_000])
def test_a_curve_has_some_500_points_spread_evenly_with_the_first_and_the_last(total: int) -> None:
    drawn = Curve(set())
    drawn.limit(total)
    steps = [number for number in range(1, total + 1) if drawn.offer(number, last=number == total)]
    assert steps[0] == 1
    assert steps[-1] == total
    assert min(total, 250) <= len(steps) <= 502
    assert max(after - before for before, after in itertools.pairwise([0, *steps])) <= total / 250 + 1
    resumed = Curve(set(steps))
    resumed.limit(total)
    assert not any(resumed.offer(number) for number in range(1, total + 1))


def test_a_long_training_logs_a_sparse_curve_and_its_last_step_wherever_it_ends(tracking_uri: str) -> None:
    run = opened(tracking_uri)
    run.hear({"type": "started", "steps": 50_000})
    for number in range(1, 1251):
        run.hear(step(number))
    run.hear({"type": "valid", "step": 1250, "valid_loss": 0.5})
    run.finish("KILLED")
    assert [number for number, _ in curve(tracking_uri, run.run_id, "train/loss")] == [1, *range(100, 1201, 100), 1250]
    assert curve(tracking_uri, run.run_id, "valid/loss") == [(1250, 0.5)]


def test_samples_of_the_machine_become_rarer_in_a_long_training() -> None:
    hours = [_count_samples(3600.0 * count) for count in (0, 1, 2, 24, 24 * 7)]
    assert hours == [1, 1, 2, 32, 128]


def test_an_mlflow_that_takes_calls_and_never_answers_holds_up_the_end_of_a_training_for_a_moment_only(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(tracking_uri)
    called, answered = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        called.set()
        answered.wait()

    monkeypatch.setattr(run._client, "log_batch", hang)
    monkeypatch.setattr("hone.tracking.run_log.END_SECONDS", 0.1)
    run.hear(step(1))
    assert called.wait(60)
    run.finish("FINISHED")
    assert "was not ended: MLflow did not answer in time" in caplog.text
    answered.set()


def test_a_database_that_cannot_be_written_is_reported_once_and_ends_no_training(
    tracking_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    run = opened(tracking_uri)
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
        database.execute(
            "create trigger full before insert on metrics begin select raise(abort, 'the disk is full'); end"
        )
    run.hear(step(1))
    run.finish("FINISHED")
    assert "What MLflow lacks of the curves is added when the model is registered" in caplog.text
    assert "Traceback" not in capfd.readouterr().err + caplog.text
    assert connect(tracking_uri).get_run(run.run_id).info.status == "FINISHED"


def test_batches_hold_whole_events() -> None:
    events = [as_metrics("train", {"step": n, "loss": 1.0, "grad_norm": 2.0, "device": "cpu"}, 0) for n in range(5)]
    assert [len(take(events, 5)) for _ in range(3)] == [2, 2, 1]
    assert events == []
    large = [as_metrics("train", {"step": 1, "loss": 1.0, "epoch": 0.5}, 0)]
    assert len(take(large, 1)[0]) == 2


def test_files_lie_beside_the_database_or_where_they_are_told(tracking_uri: str, tmp_path: Path) -> None:
    client = connect(tracking_uri)
    beside = client.get_experiment(get_or_create_experiment(client, "my runs"))
    told = client.get_experiment(get_or_create_experiment(client, "told", str(tmp_path / "told")))
    assert beside.artifact_location == f"{(tmp_path / 'mlflow' / 'artifacts').as_uri()}/my%20runs"
    assert told.artifact_location.endswith(f"{tmp_path}/told/told")


def test_a_data_folder_may_have_spaces_and_a_percent_sign_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "my data, 100% of it"
    uri = f"sqlite:///{folder}/mlflow/mlflow.db"
    run = opened(uri)
    connect(uri).log_text(run.run_id, "text", "note.txt")
    run.finish("FINISHED")
    assert (folder / "mlflow" / "mlflow.db").is_file()
    assert [file.read_text() for file in folder.rglob("note.txt")] == ["text"]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_deleted_experiment_is_named(tracking_uri: str) -> None:
    client = connect(tracking_uri)
    client.delete_experiment(get_or_create_experiment(client, "gone"))
    with pytest.raises(ConfigError, match="experiment gone: this MLflow experiment was deleted"):
        opened(tracking_uri, experiment="gone")


def test_a_place_where_mlflow_keeps_no_records() -> None:
    with pytest.raises(ConfigError, match="sqlite:///"):
        check_tracking_uri("mlruns")
    check_tracking_uri("sqlite:////nowhere/mlflow.db")
    check_tracking_uri("databricks")


def test_preparing_twice_and_at_once_makes_one_store(tmp_path: Path, empty_database: Path) -> None:
    from hone.store.databases import create_file

    path = tmp_path / "new" / "mlflow.db"
    path.parent.mkdir()
    create_file(path, lambda file: shutil.copyfile(empty_database, file))
    inode = path.stat().st_ino
    create_file(path, lambda file: shutil.copyfile(empty_database, file))  # the loser of a race
    create_sqlite_store(f"sqlite:///{path}")
    assert path.stat().st_ino == inode
    assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]
    assert sqlite3.connect(path).execute("select name from experiments").fetchall() == [("Default",)]


def test_the_process_keeps_its_own_tracking_uri(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere.example")
    with default_tracking_uri(tracking_uri):
        assert mlflow.get_tracking_uri() == tracking_uri
    assert os.environ["MLFLOW_TRACKING_URI"] == mlflow.get_tracking_uri() == "http://elsewhere.example"
    mlflow.set_tracking_uri(None)
