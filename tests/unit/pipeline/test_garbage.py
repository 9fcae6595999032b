"""`hone gc` on a data folder with a registered version: what it lists, what it removes, and what works afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from hone.environment import Home, Retention, load_retention
from hone.errors import ConfigError, ServiceError
from hone.models.locate import BaseModel
from hone.pipeline.garbage import LOG_BYTES, LOG_TAIL, list_garbage
from hone.registry.integrity import check_files
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.store.retention import DAY
from hone.tracking.reader import get_version
from hone_app.cli.main import main
from tests.registering import do_register
from tests.untrained_line import build_line


def make_age(path: Path, days: float) -> None:
    moment = time.time() - days * DAY
    for entry in (*path.rglob("*"), path):
        os.utime(entry, (moment, moment))


@pytest.fixture
def home(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in [name for name in os.environ if name.startswith("HONE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    return Home(tmp_path / "home")


@pytest.fixture
def line(home: Home, base: BaseModel) -> Mapping[str, Artifact]:
    """Artifacts that were last used 40 days ago, of a version registered since."""
    from hone.methods.full import Full

    artifacts = build_line(home.store, base, Full())
    do_register(home.root / "out", artifacts, base, home.tracking_uri)
    make_age(home.root, 40)
    return artifacts


def write_old_files(home: Home) -> None:
    for folder in (home.downloads / "demo-1-ab", home.data_docs / "demo", home.store.root / "work" / "train-ab"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
        make_age(folder, 40)
    (home.store.root / "work" / "curate-cd").mkdir()
    home.logs.mkdir()
    (home.logs / "worker.log").write_bytes(b"an old line\n" * (LOG_BYTES // 12 + 1) + b"the last line\n")


def test_what_a_version_needs_stays_and_the_rest_is_listed_and_removed(
    home: Home, line: Mapping[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    write_old_files(home)
    before = sorted(home.root.rglob("*"))
    assert main(["gc"]) == 0
    printed = capsys.readouterr().out
    kinds = [printed_line.partition(":")[0] for printed_line in printed.splitlines() if printed_line[:1].isalpha()]
    artifacts = [f"{stage} artifacts" for stage in ("curate", "evaluate", "ingest", "tokenize")]
    others = ["work of killed stages", "interrupted trainings", "downloads", "Data Docs of stopped runs", "logs"]
    assert kinds == [*artifacts, *others]
    assert f"ingest-{line['ingest'].key}: not used for 40 days" in printed
    assert "hone gc --yes" in printed
    assert [path for path in sorted(home.root.rglob("*")) if "locks" not in path.parts] == [
        path for path in before if "locks" not in path.parts
    ]
    assert main(["gc", "--yes"]) == 0
    assert "9 of 9 removed" in capsys.readouterr().out
    assert {stage for stage, artifact in line.items() if artifact.path.exists()} == {"train", "validate"}
    log = (home.logs / "worker.log").read_bytes()
    assert len(log) <= LOG_TAIL and log.startswith(b"an old line\n") and log.endswith(b"the last line\n")
    check_files(home.tracking_uri, get_version(home.tracking_uri, "models:/tiny@candidate"))
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"


def test_a_version_without_an_alias_goes_with_its_artifacts_only_when_that_is_asked_for(
    home: Home, line: Mapping[str, Artifact], base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone.tracking.client import connect

    client = connect(home.tracking_uri)
    client.delete_registered_model_alias("tiny", "candidate")
    version = client.get_model_version("tiny", "1")
    client.create_model_version("tiny", str(home.root), tags=dict(version.tags) | {"hone.digests": "{}"})
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 31 * DAY)  # the version was registered a moment ago
    assert "model versions" not in {item.kind for item in list_garbage(home, Retention())}
    garbage = list_garbage(home, Retention(versions=1))
    assert [item.name for item in garbage if item.kind == "model versions"] == ["tiny version 1"]
    assert all(item.remove() for item in garbage)
    assert not line["train"].path.exists()
    assert [str(version.version) for version in client.search_model_versions("name='tiny'")] == ["2"]
    # The training is made again, in another run.
    again = build_line(home.store, base, _full())
    assert do_register(home.root / "again", again, base, home.tracking_uri)["version"] == "3"


def test_what_was_registered_in_another_mlflow_stays(home: Home) -> None:
    def commit(stage: str, inputs: dict[str, str], facts: dict[str, str]) -> Artifact:
        def make(out: Path) -> Product:
            (out / "file").write_text(f"{stage} {facts}")
            return Product(1, ("file",), facts)

        artifact, _ = home.store.obtain(Recipe(stage, {}, inputs, {}, {}), make)
        make_age(artifact.path, 40)
        return artifact

    for version, uri in (("1", "http://other.example"), ("2", home.tracking_uri)):
        train = commit("train", {"version": version}, {"version": version})
        facts = {"model": "tiny", "version": version, "run_id": "ab", "tracking_uri": uri}
        commit("register", {"train": train.digest}, facts)
    listed = {item.name.partition("-")[0]: item for item in list_garbage(home, Retention())}
    assert listed.keys() == {"register", "train"}
    assert all(item.remove() for item in listed.values())
    [train_manifest], [registration] = home.store.list_manifests("train"), home.store.list_manifests("register")
    assert train_manifest["facts"]["version"] == registration["facts"]["version"] == "1"


def _full() -> object:
    from hone.methods.full import Full

    return Full()


def test_without_mlflow_nothing_is_removed(home: Home, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    with pytest.raises(ServiceError):
        list_garbage(home, Retention())


def test_the_settings_come_from_the_command_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_KEEP_DAYS", "7")
    monkeypatch.setenv("HONE_KEEP_VERSIONS", "5")
    assert load_retention() == Retention(7, 5)
    assert load_retention(14, 0) == Retention(14, 0)
    with pytest.raises(ConfigError, match=r"--days: is '0'\n.*at least 1"):
        load_retention(0)
    monkeypatch.setenv("HONE_KEEP_VERSIONS", "some")
    with pytest.raises(ConfigError, match="HONE_KEEP_VERSIONS: is 'some'"):
        load_retention()
