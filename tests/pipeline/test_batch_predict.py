"""Batch prediction with models that the line has registered: in process, and as `hone predict` on a real server."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text

from hone.batch import answers, output, record, rows
from hone.batch.request import Request, resolve_request
from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import ConfigError, DataError, ModelError
from hone.store.artifact import Artifact
from tests import preloaded
from tests.polling import until
from tests.small_line import FILLING, WORDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, base_model: Path, rows_csv: Path) -> Home:
    """A data folder where the line has registered two models, each its name's champion.

    `small` tells topics apart, `tagged` finds their words.
    """
    from hone.pipeline.run import run_stage
    from hone.pipeline.stage import Job
    from hone.pipeline.stages import list_stages
    from hone.tracking.client import connect

    folder = tmp_path_factory.mktemp("batch")
    (folder / "rows.conll").write_text(conll())
    common = {"model": {"base": str(base_model)}, "tokenization": {"max_length": 32}, "evaluation": {"resamples": 100}}
    steps = [{"kind": "normalize"}, {"kind": "duplicates", "near": False}]
    topics = {"source": {"kind": "files", "paths": [str(rows_csv)]}, "columns": {"label": "topic"}}
    words = {"source": {"kind": "files", "paths": [str(folder / "rows.conll")]}}
    learning = {"epochs": 10, "batch_size": 16, "learning_rate": 5.0e-3, "precision": "fp32"}
    made = Home(folder / "hone")
    for tree in (
        {"name": "small", "ingest": topics},
        {"name": "tagged", "ingest": words, "objective": {"kind": "token-classification"}},
    ):
        config = parse_config(common | {"curation": {"steps": steps}, "training": learning} | tree)
        found: dict[str, Artifact] = {}
        for stage in list_stages(config):
            found[stage] = run_stage(stage, Job(config, found, made))
        connect(made.tracking_uri).set_registered_model_alias(config.name, "champion", "1")
    return made


@pytest.fixture(autouse=True)
def this_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's data folder."""
    monkeypatch.setenv("HONE_HOME", str(home.root))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def conll() -> str:
    """Sentences in which the words of a topic are tagged."""
    draw, lines = random.Random(2), []
    for _ in range(120):
        words, tags = draw.choices(FILLING, k=8), ["O"] * 8
        at, topic = draw.randrange(8), draw.choice(sorted(WORDS))
        words[at], tags[at] = draw.choice(WORDS[topic]), f"B-{topic}"
        lines += [f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)] + [""]
    return "\n".join(lines)


def sentences(count: int, seed: int = 5) -> list[str]:
    """Texts of 1 to 30 words, all different."""
    draw = random.Random(seed)
    every = [word for group in WORDS.values() for word in group] + FILLING
    return [" ".join([*draw.choices(every, k=draw.randint(0, 29)), FILLING[i % 9]]) for i in range(count)]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf8")
    return path


def predict(home: Home, **asked: Any) -> dict[str, Any]:
    """The whole of it, as the flow does it, without Prefect."""
    batch = resolve_request(Request.model_validate({"model": "small"} | asked), home)
    account = output.find_finished(batch, home)
    if not account:
        given = rows.read_rows(batch, home)
        account = output.commit_output(
            batch, given, [answers.answer_shard(batch, each, home)[0] for each in rows.list_shards(given)], home
        )
    return account | {"run": record.log_batch_run(batch, account, home)}


def asked_one_by_one(home: Home, model: str, texts: list[str]) -> list[dict[str, Any]]:
    """What the served model says of each text by itself."""
    import mlflow

    mlflow.set_tracking_uri(home.tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{model}@champion")
    return [served.predict([each]).to_dict("records")[0] for each in texts]


def test_each_row_of_a_ragged_input_has_one_row_in_order_with_the_served_models_answer(
    home: Home, tmp_path: Path
) -> None:
    texts = sentences(25)
    lines: list[Any] = [{"id": i, "text": each, "more": [i]} for i, each in enumerate(texts)]
    lines[3] = "{malformed"
    lines[7] = {"id": 7, "text": None, "more": [7]}
    lines[11] = {"id": 11, "text": "  ", "more": None}
    lines[13] = {"id": 13, "more": [13], "late": "a column of this row alone"}
    source = {"kind": "files", "paths": [str(write_jsonl(tmp_path / "rows.jsonl", lines))]}
    out = tmp_path / "out.parquet"
    account = predict(home, source=source, output=str(out), shard_rows=10)

    table = pq.read_table(out)
    answer = ["prediction", "score", "truncated", "model_version", "reason"]
    assert table.column_names == ["id", "text", "more", "late", *answer]
    found = table.to_pylist()
    assert [row["id"] for row in found] == [None if i == 3 else i for i in range(25)]
    assert [row["text"] for row in found if row["reason"] is None] == [
        each for i, each in enumerate(texts) if i not in (3, 7, 11, 13)
    ]
    reasons = {i: row["reason"].partition(":")[0] for i, row in enumerate(found) if row["reason"]}
    assert reasons == {3: "malformed JSON", 7: "text is null", 11: "text is empty", 13: "there is no text"}
    assert "line 4 of the file" in found[3]["reason"]
    assert all((row["prediction"] is None) == (row["reason"] is not None) == (row["score"] is None) for row in found)
    assert {row["model_version"] for row in found} == {"models:/small/1"}
    answered = [row for row in found if row["reason"] is None]
    for row, said in zip(answered, asked_one_by_one(home, "small", [row["text"] for row in answered]), strict=True):
        assert row["prediction"] == said["label"]
        assert row["score"] == pytest.approx(said["score"], abs=1e-5)
    assert {row["prediction"] for row in answered} == set(WORDS)
    assert (account["rows"], account["unanswered"], account["shards"]) == (25, 4, 3)
    assert account["reasons"] == dict.fromkeys(reasons.values(), 1)
    assert json.loads((tmp_path / "out.parquet.json").read_text())["key"] == account["key"]
    assert not list(tmp_path.glob(".out*"))

    with pytest.raises(DataError, match="row 4 cannot be predicted"):
        predict(home, source=source, output=str(tmp_path / "other.parquet"), unanswered="stop")
    assert not (tmp_path / "other.parquet").exists()


def test_mlflow_has_the_run_and_the_same_again_is_found(home: Home, tmp_path: Path) -> None:
    from hone.tracking.client import connect

    source = {
        "kind": "files",
        "paths": [str(write_jsonl(tmp_path / "a.jsonl", [{"text": t} for t in sentences(8, 3)]))],
    }
    first = predict(home, source=source, output=str(tmp_path / "out.parquet"))
    when = (tmp_path / "out.parquet").stat().st_mtime_ns
    assert predict(home, source=source, output=str(tmp_path / "out.parquet")) == first
    assert (tmp_path / "out.parquet").stat().st_mtime_ns == when
    client = connect(home.tracking_uri)
    experiment = client.get_experiment_by_name("small predictions")
    run = client.get_run(first["run"])
    assert run.info.experiment_id == experiment.experiment_id
    assert run.data.metrics["rows"] == 8
    assert run.data.metrics["seconds"] > 0
    assert run.data.params["version"] == "models:/small/1"
    assert run.data.params["output"] == (tmp_path / "out.parquet").as_uri()
    mine = client.search_runs([experiment.experiment_id], f"tags.`{record.KEY}` = '{first['key']}'")
    assert len(mine) == 1


def test_a_query_comes_out_as_a_directory_of_parts_that_pandas_reads(home: Home, tmp_path: Path) -> None:
    import pandas as pd

    engine = create_engine(f"sqlite:///{tmp_path}/app.sqlite")
    texts = sentences(23, 4)
    with engine.begin() as connection:
        connection.execute(text("create table mails (number integer primary key, body text, paid real)"))
        connection.execute(
            text("insert into mails values (:number, :body, :paid)"),
            [
                {"number": i, "body": body, "paid": i / 2 if i % 10 else (None if i else 0.5)}
                for i, body in enumerate(texts)
            ],
        )
    query = "select number, body, paid, 'x' as prediction from mails order by number desc"
    source = {"kind": "sql", "url": f"sqlite:///{tmp_path}/app.sqlite", "query": query}
    asked = {"source": source, "output": str(tmp_path / "out"), "columns": {"text": "body"}, "shard_rows": 10}
    with pytest.raises(ConfigError, match="a column prediction, which the output adds"):
        predict(home, **asked)
    account = predict(home, **asked, prefix="new_")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "_SUCCESS",
        "_manifest.json",
        *(f"part-0000{i}.parquet" for i in range(3)),
    ]
    assert [file["rows"] for file in account["files"]] == [10, 10, 3]
    frame = pd.read_parquet(tmp_path / "out")
    assert frame["number"].tolist() == list(range(22, -1, -1))
    assert frame["body"].tolist() == texts[::-1]
    assert frame["new_prediction"].notna().all()
    assert set(frame["prediction"]) == {"x"}
    # A row more: the shards that were there before it are not asked again, and the directory is replaced.
    with engine.begin() as connection:
        connection.execute(text("insert into mails values (-1, 'goal match', 1)"))
    before = stamps(home)
    again = predict(home, **asked, prefix="new_")
    assert again["rows"] == 24
    assert stamps(home).items() > before.items()
    assert len(stamps(home)) == len(before) + 1
    assert len(pd.read_parquet(tmp_path / "out")) == 24
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def stamps(home: Home) -> dict[str, int]:
    """When each shard's answers were made, by key."""
    files = (home.root / "store" / answers.STAGE).glob("*/manifest.json")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def test_another_objectives_outputs_are_all_there_and_no_row_is_lost(home: Home, tmp_path: Path) -> None:
    given = ["we saw rain in town", '["we", "saw", "goal"]', "[1, 2]", "[]", "more of the team"]
    path = write_jsonl(tmp_path / "a.jsonl", [{"words": each} for each in given])
    predict(
        home,
        model="tagged",
        source={"kind": "files", "paths": [str(path)]},
        columns={"tokens": "words"},
        output=str(tmp_path / "out.parquet"),
    )
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["words", "prediction", "model_version", "reason"]
    found = table.to_pylist()
    assert [row["words"] for row in found] == given
    assert table["prediction"].null_count == 0
    wanted = asked_one_by_one(home, "tagged", [given[0], given[1], given[4]])
    assert [found[i]["prediction"] for i in (0, 1, 4)] == [each["entities"] for each in wanted]
    assert {e["type"] for i in (0, 1) for e in json.loads(found[i]["prediction"])} == {"weather", "sport"}


def test_a_model_whose_file_was_changed_predicts_nothing(home: Home, tmp_path: Path) -> None:
    from hone.registry.integrity import check_files
    from hone.tracking.reader import get_version

    place = check_files(home.tracking_uri, get_version(home.tracking_uri, "models:/small@champion"))
    weights = place / "artifacts" / "model" / "model.safetensors"
    content = weights.read_bytes()
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": each} for each in sentences(4)])
    asked = {"source": {"kind": "files", "paths": [str(path)]}, "output": str(tmp_path / "out.parquet")}
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ModelError, match=r"artifacts/model/model\.safetensors was changed"):
            predict(home, **asked)
    finally:
        weights.write_bytes(content)
    assert not (tmp_path / "out.parquet").exists()
    assert predict(home, **asked)["rows"] == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "7"}, r"no such model version.*\n.*There are version 1, @"),
        ({"version": "@absent"}, "no such model version"),
        ({"columns": {"label": "topic"}}, "the model has no input label"),
        ({"columns": {"text": "txt"}}, r"no column 'txt'.*\n.*columns: \{text: text\}"),
        ({"output": "taken.parquet"}, "was not written by a batch prediction"),
        ({"output": "s3://bucket/out.parquet"}, "this machine's disks"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_asked(
    home: Home, tmp_path: Path, change: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"a": [1]}), "taken.parquet")
    source = {"kind": "files", "paths": [str(write_jsonl(tmp_path / "a.jsonl", [{"text": "rain"}]))]}
    with pytest.raises((ConfigError, ModelError, DataError), match=told):
        predict(home, **({"source": source, "output": "out.parquet"} | change))
    assert pq.read_table("taken.parquet").to_pydict() == {"a": [1]}


# As a command, on a real Prefect server.


def environ(home: Home, environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "HONE_HOME": str(home.root)}


def ask(url: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def test_killed_half_way_it_goes_on_and_no_shard_is_done_twice(
    home: Home, tmp_path: Path, environment: dict[str, str], hone: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    texts = sentences(400, 9)
    (tmp_path / "rows.csv").write_text("id,body\n" + "".join(f"{i},{each}\n" for i, each in enumerate(texts)))
    words = ("predict", "small", "--input", tmp_path / "rows.csv", "--output", tmp_path / "out.parquet")
    words += ("--columns", "text=body", "--shard-rows", 5)
    before = stamps(home)
    command = [preloaded.plain_hone(), *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ(home, environment)) as run:
        until(lambda: len(stamps(home)) >= len(before) + 10 or run.poll() is not None)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    done = {key: at for key, at in stamps(home).items() if key not in before}
    assert 10 <= len(done) < 80
    assert not (tmp_path / "out.parquet").exists()

    again = hone(*words, HONE_HOME=str(home.root))
    assert again.returncode == 0, again.stderr
    assert "400 rows by models:/small/1" in again.stdout
    after = {key: at for key, at in stamps(home).items() if key not in before}
    assert len(after) == 80
    assert {key: after[key] for key in done} == done  # not one of them was made again
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == [str(i) for i in range(400)]
    assert table["body"].to_pylist() == texts
    assert table["prediction"].null_count == 0
    assert not list((home.root / "store" / rows.STAGE).glob("*"))


FLAKY = """
import sys
from pathlib import Path
from hone.batch import answers
from hone.config.parts import SourcePart
from pydantic import TypeAdapter

real, failed, loads = answers.answer_rows, [], []
loaded = answers.load_served

def flaky(ask, refusals, frame):
    if "thunder wind 5" in set(frame["text"]) and len(failed) < 2:
        failed.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return real(ask, refusals, frame)

answers.answer_rows = flaky
from flows.batch_predict import batch_predict

source = TypeAdapter(SourcePart).validate_python({"kind": "files", "paths": [sys.argv[1]]})
batch_predict(model="small", source=source, output=sys.argv[2], shard_rows=2)
print(loaded.cache_info().misses, len(failed))
"""


def test_a_shard_that_fails_is_tried_again_alone_with_the_model_that_is_loaded(
    home: Home, tmp_path: Path, environment: dict[str, str], prefect_url: str
) -> None:
    given = write_jsonl(tmp_path / "a.jsonl", [{"text": f"thunder wind {i}"} for i in range(8)])
    command = [preloaded.python(), "-c", FLAKY, str(given), str(tmp_path / "out")]
    done = subprocess.run(command, env=environ(home, environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["1", "2"]
    assert pq.read_table(tmp_path / "out")["text"].to_pylist() == [f"thunder wind {i}" for i in range(8)]
    newest = {"flow_runs": {"name": {"any_": ["batch-predict small"]}}, "sort": "START_TIME_DESC", "limit": 1}
    [run] = ask(prefect_url, "/flow_runs/filter", newest)
    assert run["state_type"] == "COMPLETED"
    tasks = ask(prefect_url, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    tries = {task["name"]: task["run_count"] for task in tasks if task["name"].startswith("predict")}
    assert tries == {f"predict small from row {first}": 3 if first == 4 else 1 for first in (0, 2, 4, 6)}
    [page] = [
        item
        for item in ask(prefect_url, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        if item["key"] == "predictions-small"
    ]
    assert "8 rows by models:/small/1" in page["data"]
