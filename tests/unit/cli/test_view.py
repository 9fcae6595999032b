"""What a person sees in the terminal while a run goes on, and when it is done."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hone.pipeline.plan import StagePlan
from hone.progress import Progress, emit
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.store.store import Store
from hone_app.cli.view import Board, Line, make_console, print_plan, print_summary, show_progress

ARTIFACT = Artifact("curate", "k", "/store/curate/k", "d", 1800)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_running_stage_shows_rate_time_left_and_loss() -> None:
    line = Line()
    line.update("started", ["no earlier result"], 100.0)
    assert line.text(100.0) == "no earlier result"
    line.update("progress", Progress(50, 200, "steps", figures={"loss": 0.71}), 110.0)
    assert line.text(110.0) == "50/200 steps · 5.0/s · 0:30 left · loss 0.71"


def test_brackets_in_a_users_words_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(["ingest"], make_console()):
        emit("ingest", "started", ["ingest.source.paths ['[old]/rows.csv'] -> ['[/new]/rows.csv']"])
    assert "['[old]/rows.csv'] -> ['[/new]/rows.csv']" in capsys.readouterr().out


def test_a_finished_stage_shows_its_time_and_rows() -> None:
    line = Line()
    line.update("started", [], 100.0)
    line.update("done", ARTIFACT, 112.5)
    assert line.text(200.0) == "12.5 s · 1,800 rows"


def test_ingest_says_what_it_left_out_and_converted(tmp_path: Path) -> None:
    facts = {"skipped": {"answer is reject": 7}, "notes": {"texts whose span offsets count utf-16, converted": 1041}}
    (tmp_path / "manifest.json").write_text(json.dumps({"facts": facts}))
    line = Line()
    line.update("started", [], 100.0)
    line.update("done", Artifact("ingest", "k", str(tmp_path), "d", 1800), 101.0)
    assert line.text(200.0) == (
        "1.0 s · 1,800 rows · 7 rows left out (answer is reject)"
        " · 1,041 texts whose span offsets count utf-16, converted"
    )


def test_a_stage_that_was_there_says_so_even_if_prefect_says_it_again() -> None:
    line = Line()
    line.update("hit", ARTIFACT, 1.0)
    line.update("hit", ARTIFACT, 2.0)
    assert line.text(3.0) == "up to date · 1,800 rows"


def test_a_terminal_gets_a_bar_for_what_runs() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    board = Board({"ingest": Line(), "curate": Line()})
    board.lines["curate"].update("started", [], 0.0)
    board.lines["curate"].update("progress", Progress(1, 2), 0.0)
    console.print(board.render())
    assert "━" in printed(console)
    with show_progress(["ingest"], console):
        emit("ingest", "hit", ARTIFACT)
    assert "up to date" in printed(console)


def test_elsewhere_there_are_plain_lines_once_for_each_event(console: Console) -> None:
    with show_progress(["ingest", "curate"], console):
        emit("ingest", "hit", ARTIFACT)
        emit("ingest", "hit", ARTIFACT)
        emit("curate", "started", ["curation.min_chars 20 -> 40"])
        emit("curate", "progress", Progress(1, 2))
    assert printed(console).splitlines() == [
        "ingest    up to date · 1,800 rows",
        "curate    curation.min_chars 20 -> 40",
    ]


def test_the_plan_names_hits_misses_and_what_waits(console: Console) -> None:
    looks = [
        StagePlan("ingest", ARTIFACT),
        StagePlan("curate", None, ("a 1 -> 2",)),
        StagePlan("train", None, ("waits for x",)),
    ]
    print_plan(console, looks)
    lines = [line.rstrip().split(maxsplit=2) for line in printed(console).splitlines()]
    assert lines == [
        ["ingest", "hit", "/store/curate/k"],
        ["curate", "miss", "a 1 -> 2"],
        ["train", "pending", "waits for x"],
    ]


def test_the_summary_sets_the_model_beside_the_baselines(console: Console, tmp_path: Path) -> None:
    figure = {"value": 0.7, "low": 0.65, "high": 0.75}
    metrics = {
        "rows": 500,
        "confidence": 0.95,
        "measures": {"accuracy": {"title": "Accuracy", "lower": False, "share": True}},
        "systems": {"model": {"accuracy": figure}, "majority": {"accuracy": figure | {"value": 0.2}}},
        "comparisons": {"majority": {"metric": "accuracy", "difference": 0.5, "low": 0.4, "high": 0.6, "p": 0.001}},
    }
    version = {"model": "demo", "version": "3", "alias": "candidate"}

    def write(out: Path) -> Product:
        (out / "metrics.json").write_text(json.dumps(metrics))
        return Product(1, ("*.json",), version)

    made, _ = Store(tmp_path).obtain(Recipe("evaluate", {}, {}, {}, {}), write)
    print_summary(console, made, made, "hone up")
    text = printed(console)
    for part in ("500 test rows [95% interval]", "70.0% [65.0, 75.0]", "+50.0 [40.0, 60.0]", "0.001"):
        assert part in text
    assert "demo version 3, alias candidate" in text
    assert "report.html" in text
    assert "hone up" in text
