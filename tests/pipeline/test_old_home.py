"""A data folder that Hone 0.1.0 left, before its modules were moved, still serves: nothing in it names a module path.

fixtures/home-0.1.0.tar.xz holds the store and the MLflow database (as SQL) of two runs on 200 rows of the small line;
version 1 is the champion, version 2 the candidate. @HOME@ stands for the folder that it was made in.
"""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

from hone.batch import answers, output, rows
from hone.batch.request import Request, resolve_request
from hone.config.file import parse_config
from hone.drift import monitor
from hone.environment import Home
from hone.pipeline.plan import plan_run
from hone.promotion import promote
from hone.promotion.journal import Journal
from hone.registry.integrity import check_files
from hone.tracking.aliases import list_aliases
from hone.tracking.client import connect, create_sqlite_store
from hone.tracking.links import find_current_version, load_version_config
from hone.tracking.reader import get_version
from tests.small_line import topic_rows

FIXTURE = Path(__file__).parents[1] / "fixtures" / "home-0.1.0.tar.xz"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The data folder, unpacked."""
    root = tmp_path / "home"
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(root, filter="data")
    for manifest in root.glob("store/*/*/manifest.json"):
        manifest.write_text(manifest.read_text("utf8").replace("@HOME@", str(root)), "utf8")
    dump = root / "mlflow" / "mlflow.sql"
    with sqlite3.connect(root / "mlflow" / "mlflow.db") as database:
        database.executescript(dump.read_text("utf8").replace("@HOME@", str(root)))
    monkeypatch.setenv("HONE_HOME", str(root))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return Home(root)


def open_journal(home: Home) -> Journal:
    return promote.open_journal(home.tracking_uri, "small")


def config(home: Home, base: Path, csv: Path) -> dict[str, Any]:
    """The configuration of version 2, with the base model and the rows where they are now."""
    tree = load_version_config(home.tracking_uri, get_version(home.tracking_uri, "models:/small/2"))
    tree["model"]["base"] = str(base)
    tree["ingest"]["source"]["paths"] = [str(csv)]
    return tree


def test_the_plan_says_that_the_code_was_moved(home: Home, base_model: Path, tmp_path: Path) -> None:
    csv = topic_rows(tmp_path / "rows.csv", 200)
    outlooks = {look.stage: look for look in plan_run(parse_config(config(home, base_model, csv)), home)}
    assert outlooks["ingest"].artifact is None
    moved = [reason for reason in outlooks["ingest"].reasons if reason.startswith("the code of ingest was moved")]
    assert len(moved) == 1, outlooks["ingest"].reasons
    assert len(outlooks["ingest"].reasons) < 5
    assert outlooks["curate"].reasons == ("waits for ingest",)


def test_its_artifacts_are_whole(home: Home) -> None:
    for stage in ("ingest", "curate", "validate", "tokenize", "train", "evaluate", "register"):
        [*manifests] = home.store.list_manifests(stage)
        assert manifests
        for manifest in manifests:
            artifact = home.store.find(stage, manifest["key"])
            assert artifact is not None
            assert home.store.verify(artifact) == []


def test_a_version_is_promoted_and_rolled_back(home: Home) -> None:
    journal = open_journal(home)
    decision = promote.decide(journal, "2", downloads=home.downloads)
    assert {"1", "2"} == {decision.champion, decision.version}
    [accuracy] = [gate for gate in decision.gates if gate.name == "accuracy: better"]
    assert accuracy.rows == "test"
    promote.log_decision(journal, decision)
    promote.refuse(journal, decision, "kim", "as good as the champion, not better")
    assert list_aliases(journal.client, "small")["champion"] == "1"
    again = promote.decide(journal, "2", downloads=home.downloads, policy="shadow")
    assert again.policy == "shadow"
    start = promote.get_standing(journal)  # type: ignore[attr-defined]
    promote.move_champion(  # type: ignore[attr-defined]
        journal, start, "2", action="promoted", who="kim", why="tried", figures={}, previous=start.champion
    )
    assert list_aliases(journal.client, "small")["champion"] == "2"
    back, _ = promote.rollback(journal, who="kim", why="wrong on Mondays", downloads=home.downloads)
    assert back.entry.to_version == "1"
    assert list_aliases(journal.client, "small")["champion"] == "1"
    entries = [record.entry.action for record in journal.records()]
    assert entries == ["promoted", "refused", "promoted", "rolled back"]


def test_a_champion_answers_batch_prediction(home: Home, tmp_path: Path) -> None:
    csv = topic_rows(tmp_path / "new.csv", 40, seed=9)
    asked = {"source": {"kind": "files", "paths": [str(csv)]}, "output": str(tmp_path / "out.parquet")}
    batch = resolve_request(Request.model_validate({"model": "small", **asked}), home)
    taken = rows.read_rows(batch, home)
    output.commit_output(
        batch, taken, [answers.answer_shard(batch, shard, home)[0] for shard in rows.list_shards(taken)], home
    )
    predictions = pd.read_parquet(tmp_path / "out.parquet")
    assert (predictions["prediction"] == pd.read_csv(csv)["topic"]).mean() > 0.9


def test_a_champion_is_monitored(home: Home, base_model: Path, tmp_path: Path) -> None:
    version = find_current_version(home.tracking_uri, "small")
    assert version is not None
    assert version.version == "1"
    csv = topic_rows(tmp_path / "recent.csv", 150, seed=7)
    own = parse_config(config(home, base_model, csv) | {"monitoring": {"min_rows": 50, "permutations": 199}})
    verdict = monitor.check_version(version, own, own.ingest.source, home)
    assert verdict.decision == "no drift", verdict.drifted
    assert verdict.recent > 100


@pytest.mark.parametrize("kept", [False, True])
def test_a_moved_or_restored_folder_reads_its_own_files(home: Home, tmp_path: Path, kept: bool) -> None:
    other = Home(tmp_path / "other disk" / "hone")
    shutil.copytree(home.root, other.root)
    if not kept:
        shutil.rmtree(home.root)
    create_sqlite_store(other.tracking_uri)
    version = get_version(other.tracking_uri, "models:/small/2")
    assert check_files(other.tracking_uri, version).is_relative_to(other.root)
    client = connect(other.tracking_uri)
    run = client.get_run(version.run_id)
    assert run.info.artifact_uri.startswith(str(other.root))
    client.log_text(run.info.run_id, "a note", "note.txt")
    journal = promote.open_journal(other.tracking_uri, "small")
    assert [record.entry.to_version for record in journal.records()] == ["1"]
    for location in client.search_experiments():
        assert unquote(location.artifact_location).removeprefix("file://").startswith(f"{other.root}/")
    assert home.root.exists() == kept
    assert not list(home.root.rglob("note.txt"))


def test_a_copy_of_the_database_alone_reads_the_files_of_the_original(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "hone")
    database = other.tracking_uri.removeprefix("sqlite:///")
    (Path(database).parent / "artifacts" / "small").mkdir(parents=True)
    shutil.copyfile(home.tracking_uri.removeprefix("sqlite:///"), database)
    version = get_version(other.tracking_uri, "models:/small/2")
    assert check_files(other.tracking_uri, version).is_relative_to(home.root)


def test_a_folder_with_two_names_stays_as_it_is(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home.root)
    before = connect(home.tracking_uri).search_experiments()
    create_sqlite_store(Home(tmp_path / "link").tracking_uri)
    assert [found.artifact_location for found in connect(home.tracking_uri).search_experiments()] == [
        found.artifact_location for found in before
    ]
