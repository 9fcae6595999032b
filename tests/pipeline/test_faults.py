"""What a person is told when the line cannot run: one clear message, an exit status, and no traceback.

By the command where it fails before the flow, in a training's process, and at a service; else in this process.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.errors import HoneError
from tests.in_process import Line
from tests.services import ask

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


def rows(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(("text,topic", *lines)) + "\n")
    return f"ingest.source.paths=[{path}]"


def many(topic: str, count: int) -> list[str]:
    return [f"some words about number {i} and {i * i} there,{topic}" for i in range(count)]


def refused(hone: Hone, conf: Path, *overrides: str, status: int, **environment: str) -> str:
    done = hone("run", conf, *overrides, **environment)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("hone: ")
    return done.stderr


def fault(line: Line, conf: Path, *overrides: str, status: int) -> str:
    """What the command would print, and exit with the status."""
    with pytest.raises(HoneError) as raised:
        line(conf, *overrides)
    assert raised.value.exit_code == status
    return str(raised.value)


def test_a_missing_file(line: Line, conf: Path) -> None:
    assert "nowhere.csv" in fault(line, conf, "ingest.source.paths=[nowhere.csv]", status=3)


def test_an_empty_file(line: Line, conf: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    assert "empty.csv" in fault(line, conf, f"ingest.source.paths=[{tmp_path}/empty.csv]", status=3)


def test_a_wrong_column(hone: Hone, conf: Path, prefect_url: str) -> None:
    message = refused(hone, conf, "ingest.columns.label=topik", status=3)
    assert "topik" in message
    assert "topic" in message
    # The run's log has the same words, and no traceback of Prefect's engine.
    newest = {"flow_runs": {"name": {"any_": ["finetune small"]}}, "sort": "START_TIME_DESC", "limit": 1}
    [run] = ask(f"{prefect_url}/flow_runs/filter", newest)
    logs = ask(f"{prefect_url}/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    errors = [line["message"] for line in logs if line["level"] >= logging.ERROR and "Finished" not in line["message"]]
    words, _, page = message.removeprefix("hone: ").rstrip("\n").rpartition("\n")
    assert errors == [words] and page == "  See docs/fine-tune-your-data.md."


def test_a_wrong_encoding(line: Line, conf: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("text,topic\nfine,food\ncafé,food\n".encode("latin1"))
    message = fault(line, conf, f"ingest.source.paths=[{path}]", status=3)
    assert "latin.csv" in message
    assert "byte 24" in message or "offset 24" in message


def test_one_class_only(line: Line, conf: Path, tmp_path: Path) -> None:
    assert "food" in fault(line, conf, rows(tmp_path, *many("food", 60)), status=3)


def test_a_class_with_one_row(line: Line, conf: Path, tmp_path: Path) -> None:
    lines = [
        *many("food", 60),
        *(line.replace("words", "games") for line in many("sport", 60)),
        "a lonely row of words,odd",
    ]
    message = fault(line, conf, rows(tmp_path, *lines), status=3)
    assert "odd" in message
    assert "min_rows" in message


def test_no_rows_left_after_curation(line: Line, conf: Path) -> None:
    message = fault(line, conf, "curation.steps=[{kind: filters, min_chars: 5000}]", status=3)
    assert "filters" in message
    assert "300" in message


def test_a_loss_that_is_not_finite_is_not_tried_again(
    hone: Hone, conf: Path, base_model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(base_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][10:] = 3e38  # its square is more than float32 holds
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    message = refused(hone, conf, f"model.base={broken}", status=6)
    assert "the loss is nan at step 1" in message
    assert "training.learning_rate" in message
    assert not list(Path(environment["HONE_HOME"]).glob("store/train/*"))


def test_an_unknown_base_model_offline(line: Line, conf: Path) -> None:
    message = fault(line, conf, "model.base=no-such-org/no-such-model", status=5)
    assert "model.base no-such-org/no-such-model" in message


def test_a_text_of_a_million_characters_is_cut_and_counted(
    line: Line, conf: Path, tmp_path: Path, rows_csv: Path
) -> None:
    lines = [*rows_csv.read_text().splitlines()[1:], f"{'rain and sun in town again ' * 40_000},weather"]
    made = line(conf, rows(tmp_path, *lines), "training.epochs=1", "curation.steps=[{kind: normalize}]")
    splits = made["tokenize"].facts()["splits"].values()
    assert sum(split["truncated_rows"] for split in splits) == 1


def test_a_failing_expectation_names_itself_the_figure_and_rows(line: Line, conf: Path) -> None:
    message = fault(line, conf, "validation.max_median_tokens=3", status=4)
    assert "median" in message.lower()


def test_mlflow_not_there(hone: Hone, conf: Path) -> None:
    message = refused(hone, conf, status=8, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in message
