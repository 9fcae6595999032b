"""The `hone` command: what it prints, and its exit status."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hone
from hone.config.file import load_config
from hone.environment import home
from hone.errors import ServiceError
from hone_app.cli.main import main
from hone_app.cli.orchestration import orchestrated


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "hone"))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "rows.csv").write_text("text,label\nfine bread,food\n")
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ningest: {{source: {{kind: files, paths: [{tmp_path}/rows.csv]}}}}\n"
        f"model: {{base: {tmp_path}/model}}\n"
    )
    return path


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hone {hone.__version__}\n"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: hone")
    assert "train and register a model version" in printed


@pytest.mark.parametrize(
    ("typed", "fix"),
    [("rnu", "Did you mean `hone run`?"), ("promot", "Did you mean `hone promote`?"), ("zzz", "See `hone --help`.")],
)
def test_a_mistyped_command_gets_the_nearest_one(typed: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed, "demo"]) == 2
    assert capsys.readouterr().err == f"hone: {typed}: no such command\n  {fix}\n  See README.md.\n"


@pytest.mark.parametrize("command", ["plan", "rows", "verify"])
def test_a_configuration_in_conf_is_found_by_its_name(
    command: str, conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (conf.parent / "conf").mkdir()
    conf.rename(conf.parent / "conf/mine.yaml")
    monkeypatch.chdir(conf.parent)
    (conf.parent / "mine").mkdir()  # a directory is no configuration
    main([command, "mine"])
    assert "no such" not in capsys.readouterr().err
    assert main([command, "mien"]) == 2
    assert (
        capsys.readouterr().err
        == "hone: mien: is not the name of a file in conf/\n  Did you mean mine?\n  See README.md.\n"
    )
    assert main([command, "other"]) == 2
    assert capsys.readouterr().err.endswith("There are: mine.\n  See README.md.\n")


@pytest.mark.parametrize("module", ["hone", "hone_app"])
def test_the_command_is_a_module_too(module: str, conf: Path) -> None:
    command = [sys.executable, "-m", module, "plan", str(conf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ingest")
    assert subprocess.run([*command[:3], "rnu"], capture_output=True).returncode == 2


def test_the_schema_is_json_with_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"ingest", "curation", "validation", "model", "training", "evaluation"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False


def test_a_plan_names_every_stage(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(conf)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == "ingest curate validate tokenize train evaluate register".split()
    assert lines[0].split(maxsplit=1)[1].strip() == "miss     first run of mine"


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_a_fault_in_the_config_is_printed_and_ends_with_2(
    command: str, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(conf), "training.learning_rat=1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"hone: {conf}: 1 error")
    assert "did you mean learning_rate?" in err


@pytest.mark.parametrize("command", ["run", "plan", "monitor"])
def test_only_what_is_missing_is_asked_for(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command])
    assert capsys.readouterr().err.endswith("the following arguments are required: CONF\n")


def test_missing_data_ends_with_3(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (conf.parent / "rows.csv").unlink()
    assert main(["plan", str(conf)]) == 3
    error = capsys.readouterr().err
    assert "rows.csv" in error
    assert error.endswith("\n  See docs/fine-tune-your-data.md.\n")


def test_verify_finds_a_changed_byte(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hone.environment import home
    from hone.pipeline.run import run_stage
    from hone.pipeline.stage import Job

    made = run_stage("ingest", Job(load_config(conf), {}, home()))
    assert main(["verify", str(conf)]) == 0
    assert "1 artifacts" in capsys.readouterr().out
    rows = made.path / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-1] + b"!")
    assert main(["verify", str(conf)]) == 7
    assert str(rows) in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut a file", "delete a file", "cut the manifest", "delete the manifest"])
def test_verify_reports_what_is_no_hit_any_more(damage: str, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hone.environment import home
    from hone.pipeline.run import run_stage
    from hone.pipeline.stage import Job

    config, data = load_config(conf), home()
    made = run_stage("ingest", Job(config, {}, data))
    file = made.path / ("manifest.json" if damage.endswith("manifest") else "rows.parquet")
    if damage.startswith("cut"):
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    for _ in range(2):
        assert main(["verify", str(conf)]) == 7
        assert str(file) in capsys.readouterr().err


def test_verify_says_what_was_not_made_yet(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(conf)]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "0 artifacts, all digests match",
        "ingest was not verified: it does not exist",
        "curate was not verified: it is made of ingest",
    ]


def test_a_plan_imports_no_torch_and_no_server(conf: Path) -> None:
    code = (
        f"import sys; from hone_app.cli.main import main; main(['plan', {str(conf)!r}]);"
        "print(sorted({'torch', 'transformers', 'mlflow', 'prefect', 'great_expectations'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    command = f"{sys.executable} -m hone_app.cli.main schema | head -c 20"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{")


def test_a_configured_prefect_server_that_is_gone_is_named_before_anything_runs(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{free_port}/api"})
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    message = f"{free_port}/api: Prefect's server did not answer"
    with pytest.raises(ServiceError, match=message), orchestrated(home()):
        raise AssertionError("the flow is not even imported")


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b"])
def test_a_data_folder_that_no_database_can_be_in_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HONE_HOME", str(tmp_path / name))
    assert main(["history", "demo"]) == 2
    assert capsys.readouterr().err.startswith(f"hone: HONE_HOME {tmp_path / name}: a data folder's path cannot contain")
    assert not list(tmp_path.glob("a*"))


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/data/digests.sqlite")


def locked(*_: object) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("pragma query_only = 1")
    connection.execute("create table t (x)")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (full, "/data/digests.sqlite: could not be read or written: No space left on device"),
        (locked, "could not be read or written: attempt to write a readonly database"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_error(
    fault: Callable[..., None],
    message: str,
    conf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hone.store.digests.DigestMemo.digest", fault)
    assert main(["plan", str(conf)]) == 7
    printed = capsys.readouterr().err
    assert message in printed
    assert "Free or extend the disk" in printed
    assert len(printed.splitlines()) == 3
