"""What moves each stage's key, and what a plan says before anything has run."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import ConfigError, DataError
from hone.pipeline.plan import plan_run
from hone.pipeline.run import build_recipe, run_ahead, run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.progress import listening
from hone.sources.files import Files
from hone.sources.hub import Hub
from hone.sources.source import RawRow
from hone.sources.sql import Sql
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.training.device import resolve_device
from hone.training.hardware import choose_device


@pytest.fixture
def model(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    home.mkdir()
    (home / "config.json").write_text("{}")
    (home / "model.safetensors").write_bytes(b"weights")
    return home


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nfine bread,food\nfine rain,weather\n")
    return path


def configured(rows: Path, model: Path, **sections: Any) -> RunConfig:
    ingest = {"source": {"kind": "files", "paths": [str(rows)]}}
    return parse_config({"name": "x", "ingest": ingest, "model": {"base": str(model)}} | sections)


def key(stage: str, config: RunConfig, home: Path) -> str:
    inputs = {name: Artifact(name, "k", "/nowhere", f"digest of {name}", 1) for name in STAGES}
    return build_recipe(stage, Job(config, inputs, Home(home))).key


RIVAL = {"name": "r", "api": "openai", "url": "http://127.0.0.1:1/v1", "model": "m"}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"shots": 1}, {"rivals"}),
        ({"name": "other"}, {"rivals"}),
        ({"price": {"input": 1, "output": 1}}, {"evaluate"}),
        ({"key": "KEY"}, set()),
        ({"parallel": 2}, set()),
        ({"attempts": 2}, set()),
        ({"timeout": 2}, set()),
    ],
)
def test_what_decides_no_answer_moves_no_key_of_the_rivals(
    change: dict[str, Any], moved: set[str], rows: Path, model: Path, tmp_path: Path
) -> None:
    configs = [configured(rows, model, evaluation={"rivals": [RIVAL | fields]}) for fields in ({}, change)]
    keys = [{name: key(name, config, tmp_path) for name in STAGES} for config in configs]
    assert {name for name in STAGES if keys[0][name] != keys[1][name]} == moved


OF_TRAINING = {"train", "sweep", "evaluate", "register"}


@pytest.mark.parametrize(
    ("section", "moved"),
    [
        ({"curation": {"split": {"seed": 3}}}, {"curate"}),
        ({"validation": {"min_rows": 3}}, {"validate", "sweep"}),
        ({"tokenization": {"max_length": 33}}, {"tokenize", "sweep", "evaluate", "register"}),
        ({"objective": {"kind": "text-classification", "label_smoothing": 0.1}}, OF_TRAINING),
        ({"training": {"epochs": 1}}, {"train", "sweep"}),
        ({"training": {"checkpoint_seconds": 5}}, set()),
        ({"training": {"device": "cuda"}}, {"train", "sweep"}),
        ({"method": {"kind": "lora"}}, OF_TRAINING | {"benchmarks"}),
        ({"evaluation": {"worst": 3}}, {"evaluate"}),
        ({"evaluation": {"rivals": [RIVAL]}}, {"rivals", "evaluate"}),
        ({"registration": {"alias": "other"}}, {"register"}),
        ({"model": {"licence": "mit"}}, {"register"}),
        ({"name": "y"}, {"register"}),
        ({"sweep": {"trials": 3}}, {"sweep"}),
        ({"sweep": {"reuse": True}}, set()),
    ],
)
def test_a_section_moves_the_keys_of_its_stages_alone(
    section: dict[str, Any], moved: set[str], rows: Path, model: Path, tmp_path: Path
) -> None:
    before = configured(rows, model)
    after = parse_config(before.model_dump() | section | {"model": {"base": str(model)} | section.get("model", {})})
    assert {name for name in STAGES if key(name, before, tmp_path) != key(name, after, tmp_path)} == moved


def test_the_device_counts_by_what_it_resolves_to(
    rows: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {}
    for found in ("cpu", "cuda"):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=found: found == "cuda")
        monkeypatch.setattr("hone.training.device._GPUS", ("/dev/null",))
        keys |= {
            (found, setting): key("train", configured(rows, model, training={"device": setting}), tmp_path)
            for setting in ("auto", "cpu", "cuda")
        }
    assert keys["cpu", "auto"] == keys["cpu", "cpu"] == keys["cuda", "cpu"]
    assert keys["cuda", "auto"] == keys["cuda", "cuda"] == keys["cpu", "cuda"]
    assert keys["cpu", "auto"] != keys["cuda", "auto"]
    monkeypatch.undo()
    assert resolve_device("auto") == choose_device("auto").type


def test_data_counts_by_its_bytes_and_not_by_its_folder_or_time(rows: Path, model: Path, tmp_path: Path) -> None:
    before = key("ingest", configured(rows, model), tmp_path)
    moved = tmp_path / "elsewhere" / rows.name
    moved.parent.mkdir()
    shutil.copy(rows, moved)
    assert key("ingest", configured(moved, model), tmp_path) == before
    moved.write_text(moved.read_text() + "fine snow,weather\n")
    assert key("ingest", configured(moved, model), tmp_path) != before


def test_a_changed_base_model_moves_the_stages_that_use_it(rows: Path, model: Path, tmp_path: Path) -> None:
    config = configured(rows, model)
    before = {name: key(name, config, tmp_path) for name in STAGES}
    (model / "model.safetensors").write_bytes(b"other weights")
    moved = {name for name in STAGES if key(name, config, tmp_path) != before[name]}
    assert moved == {"validate", "tokenize", "train", "sweep", "benchmarks-base", "benchmarks", "evaluate"}


def test_before_the_first_run_all_is_a_miss_or_waits(rows: Path, model: Path, tmp_path: Path) -> None:
    outlooks = plan_run(configured(rows, model), Home(tmp_path))
    assert [look.stage for look in outlooks] == list_stages(configured(rows, model))
    assert outlooks[0].reasons == ("first run of x",)
    assert outlooks[1].reasons == ("waits for ingest",)
    assert outlooks[-1].reasons == ("waits for train and evaluate",)
    scratch = parse_config(configured(rows, model).model_dump() | {"model": {"scratch": {"architecture": "bert"}}})
    validate = plan_run(scratch, Home(tmp_path))[3]
    assert (validate.stage, validate.reasons) == ("validate", ("waits for curate and base",))


def test_a_stage_that_ran_is_a_hit_and_its_change_has_a_reason(rows: Path, model: Path, tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), configured(rows, model)
    made = run_stage("ingest", Job(config, {}, home))
    assert plan_run(config, home)[0].artifact == made
    assert made.manifest()["recipe"]["inputs"].keys() == {"data"}
    assert (made.path / "config.yaml").read_text().startswith("name: x\n")
    rows.write_text(rows.read_text() + "fine snow,weather\n")
    assert plan_run(config, home)[0].reasons == ("input data changed",)


def test_a_run_of_another_name_is_no_reason(rows: Path, model: Path, tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), configured(rows, model)
    run_stage("ingest", Job(config, {}, home))
    rows.write_text(rows.read_text() + "fine snow,weather\n")
    other = config.model_copy(update={"name": "moods"})
    assert plan_run(other, home)[0].reasons == ("first run of moods",)
    started = []
    with listening(lambda _, event, detail: started.extend(detail if event == "started" else [])):
        run_stage("ingest", Job(other, {}, home))
    assert started == ["first run of moods"]


def test_a_name_that_has_taken_anothers_rows_and_registered_has_reasons(
    rows: Path, model: Path, tmp_path: Path
) -> None:
    home, config = Home(tmp_path / "home"), configured(rows, model)
    run_stage("ingest", Job(config, {}, home))

    def register(out: Path) -> Product:
        (out / "version.json").touch()
        return Product(1, ("*.json",))

    home.store.obtain(Recipe("register", {}, {}, {}, {}), register, name="moods")
    rows.write_text(rows.read_text() + "fine snow,weather\n")
    assert plan_run(config.model_copy(update={"name": "moods"}), home)[0].reasons == ("input data changed",)


def test_the_first_stages_are_made_ahead_for_as_long_as_they_may(rows: Path, model: Path, tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), configured(rows, model)
    run_ahead(config, home, lambda: False)
    assert not plan_run(config, home)[0].artifact
    answers = iter([True, False])
    run_ahead(config, home, lambda: next(answers))
    ahead = [bool(look.artifact) for look in plan_run(config, home)]
    assert ahead == [True] + [False] * 6


def test_a_fault_ends_what_is_made_ahead_and_is_left_to_the_run(rows: Path, model: Path, tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), configured(rows, model)
    rows.unlink()
    run_ahead(config, home, lambda: True)
    assert not home.store.list_manifests("ingest")


def test_a_missing_file_is_told_by_the_plan(rows: Path, model: Path, tmp_path: Path) -> None:
    rows.unlink()
    with pytest.raises(DataError, match=r"rows\.csv"):
        plan_run(configured(rows, model), Home(tmp_path))


def test_a_suite_that_is_not_there_is_told(rows: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-suite\.yaml"):
        key("validate", configured(rows, model, validation={"suite": "no-suite.yaml"}), tmp_path)


class TestAnInputThatChangesWhileItIsRead:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Home:
        return Home(tmp_path / "home")

    def run_and_see_it_refused(self, config: RunConfig, home: Home, match: str) -> None:
        with pytest.raises(DataError, match=match):
            run_stage("ingest", Job(config, {}, home))
        assert not home.store.list_manifests("ingest")

    def change_while_it_is_read(
        self, kind: type[Files] | type[Hub], place: str, change: Callable[[], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`change` the data before the first row of a source is read, after it, or after the last."""
        read = kind.rows

        def changing(self: Any) -> Iterator[RawRow]:
            if place == "before":
                change()
            for number, row in enumerate(read(self)):
                if place == "during" and number == 1:
                    change()
                yield row
            if place == "after":
                change()

        monkeypatch.setattr(kind, "rows", changing)

    @pytest.mark.parametrize("place", ["before", "during", "after"])
    def test_an_appended_row_is_never_stored_under_the_old_key(
        self, place: str, rows: Path, model: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = configured(rows, model)

        def append() -> None:
            with rows.open("a") as file:
                file.write("fine snow,weather\n")

        self.change_while_it_is_read(Files, place, append, monkeypatch)
        self.run_and_see_it_refused(config, home, "changed while it was read")
        monkeypatch.undo()
        assert run_stage("ingest", Job(config, {}, home)).rows == 3

    @pytest.mark.parametrize("place", ["before", "during", "after"])
    def test_nor_is_a_row_at_a_url(
        self, place: str, model: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fsspec

        url = f"memory://{tmp_path.name}/rows.csv"

        def write(*texts: str) -> None:
            with fsspec.open(url, "wb") as file:
                file.write("\n".join(["text,label", *(f"{text},food" for text in texts)]).encode())

        write("bread", "rice")
        config = parse_config(
            {
                "name": "x",
                "ingest": {"source": {"kind": "files", "paths": [url]}},
                "model": {"base": str(model)},
            }
        )
        self.change_while_it_is_read(Files, place, lambda: write("bread", "soup"), monkeypatch)
        self.run_and_see_it_refused(config, home, "changed while it was read")
        monkeypatch.undo()
        assert run_stage("ingest", Job(config, {}, home)).rows == 2

    @pytest.mark.parametrize("place", ["before", "during", "after"])
    def test_nor_is_a_row_of_a_hub_directory(
        self, place: str, rows: Path, model: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tmp_path / "tickets"
        directory.mkdir()
        file = directory / "train.csv"
        file.write_text(rows.read_text())
        config = parse_config(
            {
                "name": "x",
                "ingest": {"source": {"kind": "hub", "dataset": str(directory)}},
                "model": {"base": str(model)},
            }
        )
        self.change_while_it_is_read(Hub, place, lambda: file.write_text("text,label\nfine soup,food\n"), monkeypatch)
        self.run_and_see_it_refused(config, home, "input data changed while it was read")
        monkeypatch.undo()
        assert run_stage("ingest", Job(config, {}, home)).rows == 1

    @pytest.mark.parametrize("fingerprint_query", ["", "select count(*) from tickets"])
    def test_nor_is_a_row_of_a_table(
        self, fingerprint_query: str, tmp_path: Path, model: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database = tmp_path / "tickets.sqlite"

        def execute(*statements: str) -> None:
            with sqlite3.connect(database) as connection:
                for statement in statements:
                    connection.execute(statement)
            connection.close()

        execute(
            "create table tickets (text text, label text)",
            "insert into tickets values ('fine bread', 'food'), ('fine rain', 'weather')",
        )
        query = "select text, label from tickets order by text"
        source = {"kind": "sql", "url": f"sqlite:///{database}", "query": query, "fingerprint_query": fingerprint_query}
        config = parse_config({"name": "x", "ingest": {"source": source}, "model": {"base": str(model)}})
        read = Sql.rows

        def changing(self: Sql) -> Iterator[RawRow]:
            execute("insert into tickets values ('fine snow', 'weather')")
            yield from read(self)

        monkeypatch.setattr(Sql, "rows", changing)
        self.run_and_see_it_refused(config, home, "input data changed while it was read")
        monkeypatch.undo()
        assert run_stage("ingest", Job(config, {}, home)).rows == 3
