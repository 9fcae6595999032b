"""The whole line, on a real Prefect server and a real MLflow store."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.polling import until

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

STAGES = ["ingest", "curate", "validate", "tokenize", "train", "evaluate", "register"]


def ask(url: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def manifest(environment: dict[str, str], stage: str) -> dict[str, Any]:
    """The newest manifest of a stage."""
    files = Path(environment["HONE_HOME"], "store", stage).glob("*/manifest.json")
    return json.loads(max(files, key=lambda file: file.stat().st_mtime).read_text())


def plan(hone: Hone, *words: object) -> dict[str, tuple[str, str]]:
    """What the plan says of each stage: hit, miss or pending, and the first of its reasons."""
    lines = (re.split(r"\s{2,}", line.strip(), maxsplit=2) for line in hone("plan", *words).stdout.splitlines())
    return {parts[0]: (parts[1], parts[2]) for parts in lines if parts[0] in STAGES}


def words_for_stages(text: str) -> dict[str, str]:
    """The last line that the output has for each stage."""
    parted = (line.split(maxsplit=1) for line in text.splitlines())
    return {words[0]: words[1] for words in parted if len(words) == 2 and words[0] in STAGES}


def check_first_run(prefect_url: str, report: str) -> None:
    """What Prefect has of the first run of `small`: tasks, artifacts, the final state and the log."""
    # Prefect has the run, its tasks by name, and the artifacts.
    newest = {"flow_runs": {"name": {"any_": ["finetune small"]}}, "sort": "START_TIME_DESC", "limit": 1}
    runs = ask(prefect_url, "/flow_runs/filter", newest)
    assert [run["state_type"] for run in runs] == ["COMPLETED"]
    tasks = ask(prefect_url, "/task_runs/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
    assert sorted(task["name"] for task in tasks) == sorted(f"{stage} small" for stage in STAGES)
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    artifacts = ask(prefect_url, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [runs[0]["id"]]}}})
    by_key = {item["key"]: item["data"] for item in artifacts}
    assert {"funnel-small", "metrics-small", "report-small", "version-small"} <= set(by_key)
    # Without an MLflow server they say where the files are: a browser opens no link to one.
    assert by_key["report-small"] == f"Report: `{report}`"
    assert Path(by_key["data-docs-small"].split("`")[1]).is_file()
    version = by_key["version-small"]
    assert "file://" not in version and "](" not in version
    # The words alone decide these rows: no model is better than the classifier that counts them.
    verdict = r"^\*\*It is not proven that fine-tuning was worth it: \d+\.\d% accuracy on "
    assert re.search(verdict, version, re.MULTILINE), version
    assert re.search(r"^\| nearest neighbours \| \d+\.\d% ", version, re.MULTILINE), version
    assert "`hone promote small`" in version and f"Report: `{report}`" in version
    # Progress bars are full, and the run ends with its result.
    assert [item["data"] for item in artifacts if item["key"] in ("train-small", "evaluate-small")] == [100.0, 100.0]
    message = runs[0]["state"]["message"]
    assert re.fullmatch(
        r"small version 1, \d+\.\d% \((\+0\.0 over|\d+\.\d points worse than) TF-IDF and linear SVM\)", message
    ), message
    # Its log has each stage's reason and result; the terminal has none of these lines.
    by_run = {"logs": {"flow_run_id": {"any_": [runs[0]["id"]]}}, "sort": "TIMESTAMP_ASC"}
    logs = [(line["level"], line["message"]) for line in ask(prefect_url, "/logs/filter", by_run)]
    info = [text for level, text in logs if level == logging.INFO]
    assert "train starts: first run of small" in info
    steps = [text for text in info if re.match(r"train: \d+/\d+ steps, .*loss \d", text)]
    assert len(steps) == 10 and re.search(r" 0:00 left, ", steps[-1]), steps
    for result in (
        r"ingest: (cached: )?300 rows read, 300 kept",
        r"curate: (cached: )?\d+ of 300 rows kept: train \d+, valid \d+, test \d+",
        r"tokenize: (cached: )?[\d,]+ tokens: train ",
        r"train: \d+ steps, 10 epochs, [\d,]+ tokens, validation loss ",
        r"evaluate: It is not proven that fine-tuning was worth it: ",
        r"register: small version 1, alias candidate: models:/small/1$",
    ):
        assert [text for text in info if re.match(result, text)], (result, info)


def test_one_command_gives_a_registered_model_and_a_second_has_nothing_to_do(
    plain_hone: Hone, hone: Hone, conf: Path, environment: dict[str, str], prefect_url: str
) -> None:
    first = plain_hone("run", conf)
    assert first.returncode == 0, first.stderr
    assert list(words_for_stages(first.stdout)) == STAGES
    assert "small version 1, alias candidate" in first.stdout

    # The model learned what there is to learn, and the run says so against both baselines.
    facts = manifest(environment, "evaluate")["facts"]
    assert facts["metrics"]["accuracy"] > 0.9
    assert set(facts["baselines"]) == {"majority", "neighbours", "probe", "tf-idf"}

    # The report is where the output says.
    report = next(line.split()[-1] for line in first.stdout.splitlines() if "report.html" in line)
    assert "<html" in Path(report).read_text()[:500]

    check_first_run(prefect_url, report)
    assert "starts: first run" not in first.stdout + first.stderr

    # Again: everything is there, and no server is asked for anything.
    second = hone("run", conf, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert second.returncode == 0, second.stderr
    assert "up to date" in second.stdout
    assert "small version 1, alias candidate" in second.stdout
    assert {word for word, _ in plan(hone, conf).values()} == {"hit"}
    assert hone("verify", conf).returncode == 0

    # A version that someone deleted in MLflow is not said to be there.
    delete = "from mlflow import MlflowClient as C; import sys; C(sys.argv[1]).delete_model_version('small', '1')"
    store = f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db"
    subprocess.run([preloaded.python(), "-c", delete, store], check=True, env=environment)
    assert plan(hone, conf)["register"] == ("miss", "version 1 of small is no longer in MLflow")
    third = hone("run", conf)
    assert third.returncode == 0, third.stderr
    assert "alias candidate" in third.stdout
    assert plan(hone, conf)["register"][0] == "hit"


def test_a_miss_has_its_reason_and_equal_rows_stop_it(hone: Hone, conf: Path, environment: dict[str, str]) -> None:
    assert hone("run", conf).returncode == 0
    assert plan(hone, conf, "training.epochs=5")["train"] == ("miss", "training.epochs 10.0 -> 5.0")

    # A filter that drops nothing more: curate runs, and its rows being the same, nothing after it does.
    change = "curation.steps.filters.min_chars=2"
    expected = plan(hone, conf, change)
    assert expected["curate"][0] == "miss"
    assert "min_chars" in expected["curate"][1]
    assert expected["validate"][0] == "pending"
    again = hone("run", conf, change)
    lines = words_for_stages(again.stdout)
    assert "up to date" not in lines["curate"]
    assert all("up to date" in lines[stage] for stage in STAGES if stage != "curate"), again.stdout

    # Deleted by hand: the directory takes its cache entry along.
    tokens = Path(environment["HONE_HOME"], "store", "tokenize")
    subprocess.run(["rm", "-r", str(tokens)], check=True)
    lines = words_for_stages(hone("run", conf).stdout)
    assert "up to date" not in lines["tokenize"]
    assert "up to date" in lines["train"]


def in_training(run: subprocess.Popen[str]) -> int:
    """Wait until the run has committed a checkpoint; the training process's id."""
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("train"):
            break
    home = Path(run.args[-1])  # type: ignore[index,arg-type]
    until(lambda: list(home.glob("store/work/train-*/checkpoints/step-*")) or run.poll() is not None)
    children = subprocess.run(["pgrep", "-P", str(run.pid), "-f", "hone.training.loop"], capture_output=True, text=True)
    return int(children.stdout.split()[0])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_ended_in_the_middle_of_training_goes_on_in_the_same_mlflow_run(
    how: signal.Signals, hone: Hone, conf: Path, environment: dict[str, str]
) -> None:
    long = ("training.epochs=30", "training.checkpoint_seconds=0")
    command = [preloaded.plain_hone(), "run", str(conf), *long]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        # Tests that run in the background of a shell were told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        run.args = [environment["HONE_HOME"]]
        child = in_training(run)
        handle = os.pidfd_open(child)
        run.send_signal(how)
        # The training process ends with its parent: nothing keeps the device.
        import select

        assert select.select([handle], [], [], 30)[0]
        os.close(handle)
        run.wait()
    begun = mlflow_runs(environment)
    assert len(begun) == 1
    again = hone("run", conf, *long)
    assert again.returncode == 0, again.stderr
    assert manifest(environment, "train")["facts"]["resumed_from"]
    assert manifest(environment, "register")["facts"]["run_id"] == begun[0]
    assert mlflow_runs(environment) == begun


def mlflow_runs(environment: dict[str, str]) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db")
    experiments = [found.experiment_id for found in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(experiments)]


def test_of_two_runs_at_once_one_computes_and_both_have_the_result(conf: Path, environment: dict[str, str]) -> None:
    command = [preloaded.hone(), "run", str(conf)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    outputs = [run.communicate() for run in both]
    assert [run.returncode for run in both] == [0, 0], outputs
    assert all("small version 1, alias candidate" in output for output, _ in outputs)
    for stage in STAGES:
        assert len(list(Path(environment["HONE_HOME"], "store", stage).glob("*/manifest.json"))) == 1
    assert len(mlflow_runs(environment)) == 1


def test_without_a_server_one_is_started_for_the_run_and_loses_nothing(
    hone: Hone, conf: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    from hone.environment import Home
    from hone_app.service.servers import prefect_server, use

    done = hone("run", conf, PREFECT_API_URL="")
    assert done.returncode == 0, done.stderr
    url = use(prefect_server(Home(Path(environment["HONE_HOME"])))) + "/api"
    with urllib.request.urlopen(f"{url.removesuffix('/api')}/ui-settings", timeout=10) as answer:
        assert json.load(answer)["api_url"] == "/api"  # of whatever name the page was opened under
    runs = ask(url, "/flow_runs/filter", {})
    assert [(run["name"], run["state_type"]) for run in runs] == [("finetune small", "COMPLETED")]
    tasks = ask(url, "/task_runs/filter", {})
    assert {(task["name"].split()[0], task["state_type"]) for task in tasks} == {
        (stage, "COMPLETED") for stage in STAGES
    }
