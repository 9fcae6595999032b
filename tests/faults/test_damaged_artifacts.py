"""Bytes of the store that changed on the disk: what would read them has them made again, and says why."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.config.file import load_config
from hone.errors import ModelError, StoreError
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages
from hone.progress import listening
from hone.registry.served.sums import find_faults, list_files
from hone.store.artifact import Artifact
from hone.store.layout import MANIFEST
from hone.tracking.reader import get_version, version_directory
from hone_app.cli.main import main
from tests.in_process import Line, begin

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with pytest.MonkeyPatch.context() as changes:
        yield begin(tmp_path_factory.mktemp("damaged"), changes)


@pytest.fixture
def conf(tmp_path: Path, small: dict[str, Any], rows_csv: Path) -> Path:
    copy = tmp_path / "rows.csv"
    copy.write_bytes(rows_csv.read_bytes())
    source = small["ingest"] | {"source": {"kind": "files", "paths": [str(copy)]}}
    sections = {
        "ingest": source,
        "training": small["training"] | {"epochs": 0.2},
        "evaluation": {"resamples": 100},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small | sections))
    return path


def run_until(last: str, line: Line, conf: Path, *overrides: str) -> dict[str, Artifact]:
    """The artifacts of the stages up to `last`."""
    config = load_config(conf, overrides)
    made: dict[str, Artifact] = {}
    for stage in list_stages(config):
        made[stage] = run_stage(stage, Job(config, made, line.home))
        if stage == last:
            break
    return made


def flip_bit(artifact: Artifact) -> str:
    """Change a bit in the middle of the largest file; its name."""
    file = max((artifact.path / name for name in artifact.manifest()["files"]), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(flip(content, len(content) // 2, 2))
    return str(file)


SCRATCH = "{architecture: bert, hidden_size: 16, layers: 1, heads: 2, vocabulary: 300, positions: 64}"


@pytest.mark.parametrize(
    ("last", "changes"),
    [
        ("register", []),
        ("register", ["method={kind: lora, rank: 2, merged: false}"]),
        ("base", [f"model={{scratch: {SCRATCH}}}"]),
    ],
    ids=["merged", "adapter", "scratch"],
)
def test_no_change_of_any_file_goes_unnoticed(line: Line, conf: Path, last: str, changes: list[str]) -> None:
    """In each file of each stage's artifact and of the registered model: bits flipped, a byte more, a byte less."""
    made, draw, store = run_until(last, line, conf, *changes), random.Random(5), line.home.store
    checked = 0
    for stage, artifact in made.items():
        manifest = artifact.manifest()
        for name in (*manifest["files"], MANIFEST):
            for damaged in damaged_copies(artifact.path / name, draw):
                found = store.find(stage, artifact.key)
                noticed = (
                    found is None or bool(store.verify(found)) or (name == MANIFEST and found.manifest() == manifest)
                )
                assert noticed, f"{stage}: {name} {damaged}"
                checked += 1
        assert store.find(stage, artifact.key) and not store.verify(artifact)
    if "register" not in made:
        assert last in made
        return
    version = get_version(line.home.tracking_uri, f"models:/small/{made['register'].facts()['version']}")
    directory = version_directory(line.home.tracking_uri, version, line.home.root / "downloads")
    for name in list_files(directory):
        for damaged in damaged_copies(directory / name, draw):
            assert find_faults(directory), f"{name} {damaged}"
            checked += 1
    assert find_faults(directory) == []
    assert checked > 500


def damaged_copies(file: Path, draw: random.Random) -> Iterator[str]:
    """What was done to the file, which is whole again after the last."""
    content, mode = file.read_bytes(), file.stat().st_mode
    places = [draw.randrange(len(content)) for _ in range(12)] if content else []
    changes = {f"with a flipped bit in byte {place}": flip(content, place, draw.randrange(8)) for place in places}
    file.chmod(0o600)
    for change, damaged in {**changes, "cut": content[:-1], "with a byte more": content + b" "}.items():
        if damaged != content:
            file.write_bytes(damaged)
            yield change
    file.write_bytes(content)
    file.chmod(mode)


def flip(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damaged", "reader", "change"),
    [
        ("ingest", "curate", "curation.split.seed=5"),
        ("curate", "validate", "validation.min_rows=3"),
        ("validate", "tokenize", "tokenization.max_length=40"),
        ("tokenize", "train", "training.seed=3"),
        ("train", "evaluate", "evaluation.resamples=101"),
        ("evaluate", "register", "registration.alias=other"),
    ],
)
def test_a_damaged_artifact_is_made_again_before_it_is_read(
    line: Line, conf: Path, damaged: str, reader: str, change: str
) -> None:
    made = run_until(damaged, line, conf)[damaged]
    file = flip_bit(made)
    started: dict[str, Any] = {}
    with listening(lambda stage, event, detail: started.update({stage: detail} if event == "started" else {})):
        again = run_until(reader, line, conf, change)
    assert again[damaged] == made
    assert [*started] == [damaged, reader]
    assert started[damaged] == [f"{file}: its bytes differ from those that were written"]
    assert line.home.store.verify(made) == []


def test_verify_reports_all_damage_each_time(
    line: Line, conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that was cut, and later stages and the registered version behind it; twice, with nothing else changed."""
    monkeypatch.setenv("HONE_HOME", str(line.home.root))
    # Its own: MLflow's files are hard links to those of the store, which other tests damage in place.
    own = "training.seed=9"
    made = run_until("register", line, conf, own)
    verify = ["verify", str(conf), own]
    assert main(verify) == 0
    version = get_version(line.home.tracking_uri, made["register"].facts()["model_uri"])
    directory = version_directory(line.home.tracking_uri, version, line.home.downloads)
    whole = (directory / "MLmodel").read_bytes()
    (directory / "MLmodel").chmod(0o600)
    (directory / "MLmodel").write_bytes(whole + b" ")
    for _ in range(2):
        capsys.readouterr()
        assert main(verify) == ModelError.exit_code
        assert "MLmodel" in capsys.readouterr().err
    cut = made["curate"].path / "train.parquet"
    cut.write_bytes(cut.read_bytes()[:-1])
    flipped = flip_bit(made["evaluate"])
    for _ in range(2):
        assert main(verify) == StoreError.exit_code
        error = capsys.readouterr().err
        assert str(cut) in error and flipped in error and "MLmodel" in error
    # All of it is made again, once what the error names is deleted.
    for stage in ("curate", "evaluate"):
        shutil.rmtree(made[stage].path)
    run_until("register", line, conf, own)
    capsys.readouterr()
    assert main(verify) == 0
    assert capsys.readouterr().out == "7 artifacts, all digests match\n"


def test_what_cannot_be_made_again_from_changed_data_is_one_error(line: Line, conf: Path) -> None:
    made = run_until("validate", line, conf)
    file = flip_bit(made["validate"])
    source = conf.parent / "rows.csv"
    text = source.read_text()
    source.write_text(text + "one more row about rain in town,weather\n")
    config = load_config(conf, ["tokenization.max_length=41"])
    with pytest.raises(StoreError, match="is damaged, and what ingest was made of has changed since") as fault:
        run_stage("tokenize", Job(config, made, line.home))
    assert "Run again" in str(fault.value)
    source.write_text(text)
    assert not Path(file).exists()
    assert run_until("tokenize", line, conf, "tokenization.max_length=41")["validate"] == made["validate"]


def test_an_artifact_that_was_deleted_during_a_run_is_made_again(line: Line, conf: Path) -> None:
    made = run_until("validate", line, conf)
    line.home.store.discard(made["curate"])
    line.home.store.discard(made["validate"])
    config = load_config(conf, ["tokenization.max_length=42"])
    run_stage("tokenize", Job(config, made, line.home))
    assert line.home.store.verify(made["validate"]) == []
