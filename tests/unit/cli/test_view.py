"""What a person sees in the terminal while a run goes on, and when it is done."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from hone.errors import DataError
from hone.pipeline.plan import StagePlan
from hone.progress import Progress, emit
from hone.store.artifact import Artifact, Product
from hone.store.recipe import Recipe
from hone.store.store import Store
from hone_app.cli.view import (
    Board,
    Line,
    make_console,
    make_table,
    print_lines,
    print_plan,
    print_summary,
    print_table,
    show_progress,
)
from tests.terminal import render

ARTIFACT = Artifact("curate", "k", "/store/curate/k", "d", 1800)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_remaining_time_leaves_out_what_came_before_the_first_step() -> None:
    line = Line()
    line.update("started", ["first run of demo"], 100.0)
    assert line.text(100.0) == "starting · first run of demo"
    line.update("progress", Progress(0, 0, "steps", note="loading the model"), 101.0)
    assert line.text(101.0) == "loading the model · first run of demo"
    line.update("progress", Progress(1, 201, "steps", figures={"loss": 0.9}), 190.0)  # loading took 90 s
    assert line.text(190.0) == "  1/201 steps · loss 0.9"
    line.update("progress", Progress(51, 201, "steps", figures={"loss": 0.71}), 200.0)
    assert line.text(200.0) == " 51/201 steps ·   5.0/s ·  0:30 left · loss 0.71"


def test_the_rate_follows_the_last_half_minute() -> None:
    line = Line()
    line.update("started", [], 0.0)
    for second in range(100):  # 10 rows a second
        line.update("progress", Progress(10 * (second + 1), 4000, note="test"), float(second))
    for second in range(100, 200):  # then one a second
        line.update("progress", Progress(1000 + second - 99, 4000, note="test"), float(second))
    assert line.text(200.0) == "1,100/4,000 rows ·   1.0/s · 48:20 left · test"


def test_a_count_that_starts_again_has_a_rate_of_its_own() -> None:
    line = Line()
    line.update("started", [], 0.0)
    for seconds, done in ((0, 100), (1, 200), (9, 10), (10, 20)):
        line.update("progress", Progress(done, 200), float(seconds))
    assert line.text(10.0) == " 20/200 rows ·  10.0/s ·  0:18 left"
    for seconds, done in ((11, 1), (32, 2)):  # a slow step
        line.update("progress", Progress(done, 200), float(seconds))
    assert line.text(32.0) == "  2/200 rows · 0.048/s · 1:09:18 left"
    for seconds, done in ((33, 20), (34, 40)):  # another total
        line.update("progress", Progress(done, 72040), float(seconds))
    assert line.text(12.0).endswith(" · 1:00:00 left")


def test_brackets_in_a_users_words_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(["ingest"], make_console()):
        emit("ingest", "started", ["ingest.source.paths ['[old]/rows.csv'] -> ['[/new]/rows.csv']"])
    assert "['[old]/rows.csv'] -> ['[/new]/rows.csv']" in capsys.readouterr().out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_control_characters_of_names_and_reasons_are_shown(is_terminal: bool) -> None:
    """In a live view, a table and a line; colours and the movements of the cursor are rich's own."""
    output = io.StringIO()
    console = make_console()
    console.file, console._force_terminal = output, is_terminal
    hostile = "\x1b]0;owned\x1b[2J\u202egpj"
    with show_progress(["ingest"], console):
        emit("ingest", "started", [hostile])
    table = make_table("label")
    table.add_row(hostile)
    print_table(console, table)
    print_lines(console, {"report": Text(hostile)})
    text = output.getvalue()
    assert text.count(r"\x1b]0;owned\x1b[2J\u202egpj") >= 3
    assert not [part for part in ("\x1b]0;", "\x1b[2J", "\u202e") if part in text]
    assert ("\x1b[" in text) == is_terminal


def test_a_finished_stage_shows_its_time_and_rows() -> None:
    line = Line()
    line.update("started", [], 100.0)
    line.update("done", ARTIFACT, 112.5)
    assert line.text(200.0) == "12.5 s · 1,800 rows"


def test_ingest_says_what_it_left_out_and_converted(console: Console, tmp_path: Path) -> None:
    facts = {"skipped": {"answer is reject": 7}, "notes": {"texts whose span offsets count utf-16, converted": 1041}}

    def write(out: Path) -> Product:
        (out / "rows.txt").write_text("rows")
        return Product(1800, ("rows.txt",), facts)

    made, _ = Store(tmp_path).obtain(Recipe("ingest", {}, {}, {}, {}), write)
    with show_progress(["ingest"], console):
        emit("ingest", "hit", made)
    assert printed(console) == (
        "ingest    up to date · 1,800 rows · 7 rows left out (answer is reject)"
        " · 1,041 texts whose span offsets count utf-16, converted\n"
    )
    wide = Console(file=io.StringIO(), width=80, force_terminal=True)
    board = Board({"ingest": Line()})
    board.lines["ingest"].update("hit", made, 1.0)
    wide.print(board.render())
    assert "1,041 texts whose span offsets count utf-16, converted" in printed(wide)


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


@pytest.mark.parametrize(("started", "shown"), [(False, ""), (True, "✗ ingest")])
def test_what_is_refused_before_its_first_stage_leaves_no_lines(started: bool, shown: str) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with pytest.raises(DataError), show_progress(["ingest"], console):
        if started:
            emit("ingest", "started", [])
        raise DataError("no rows")
    assert render(printed(console)).startswith(shown)
    assert bool(render(printed(console))) == started


def rendered(board: Board) -> list[str]:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(board.render())
    return printed(console).splitlines()


def test_at_80_columns_nothing_wraps_and_columns_stay_where_they_are() -> None:
    stages = ["ingest", "curate", "train", "evaluate"]
    board = Board({stage: Line() for stage in stages})
    board.lines["ingest"].update("hit", ARTIFACT, 0.0)
    evaluate = board.lines["evaluate"]
    evaluate.update("started", [], 0.0)
    evaluate.update("progress", Progress(120, 600, note="embedding train rows, which is long"), 1.0)
    evaluate.update("progress", Progress(130, 600, note="embedding train rows, which is long"), 2.0)
    assert rendered(board)[3].endswith("…")
    board.lines["curate"].update("started", ["curation.steps.filters.min_chars 20 -> 40"] * 3, 0.0)
    train = board.lines["train"]
    train.update("started", ["first run of demo"], 0.0)
    before = rendered(board)
    train.update("progress", Progress(1, 12_345, "steps", figures={"loss": 1.234}), 1.0)
    train.update("progress", Progress(1_235, 12_345, "steps", figures={"loss": 0.714}), 21.0)
    lines = rendered(board)
    assert len(before) == len(lines) == len(stages)
    assert all(len(line) <= 80 for line in (*before, *lines))
    assert lines[2].rstrip().endswith(" 1,235/12,345 steps ·  61.7/s ·  3:00 left · loss 0.714")
    assert lines[0].index("up to date") == lines[1].index("starting") == before[2].index("starting")
    assert lines[0].index("up to date") == 1 + 1 + 9 + 1 + 12 + 1
    assert lines[2].index(" 1,235/12,345") == before[2].index("starting")


def test_elsewhere_there_are_plain_lines_once_for_each_event(console: Console) -> None:
    with show_progress(["ingest", "curate"], console):
        emit("ingest", "hit", ARTIFACT)
        emit("ingest", "hit", ARTIFACT)
        emit("curate", "started", ["curation.min_chars 20 -> 40"])
        emit("curate", "progress", Progress(1, 2))
    assert printed(console).splitlines() == [
        "ingest    up to date · 1,800 rows",
        "curate    starting · curation.min_chars 20 -> 40",
    ]


def test_the_plan_names_hits_misses_and_what_waits(console: Console) -> None:
    looks = [
        StagePlan("ingest", ARTIFACT),
        StagePlan("curate", None, ("a 1 -> 2",)),
        StagePlan("train", None, ("waits for x",)),
        StagePlan("evaluate", None, ("input train changed " * 12,)),
    ]
    print_plan(console, looks)
    assert not re.search(r"[ \t]$", printed(console), re.MULTILINE)
    lines = [line.split(maxsplit=2) for line in printed(console).splitlines()]
    assert lines == [
        ["ingest", "hit", "/store/curate/k"],
        ["curate", "miss", "a 1 -> 2"],
        ["train", "pending", "waits for x"],
        ["evaluate", "miss", ("input train changed " * 12).strip()],  # a log has no width: one line
    ]


FIGURE = {"value": 0.7, "low": 0.65, "high": 0.75}
METRICS: dict[str, Any] = {
    "rows": 500,
    "confidence": 0.95,
    "main_metric": "accuracy",
    "measures": {"accuracy": {"title": "Accuracy", "lower": False, "share": True}},
    "systems": {"model": {"accuracy": FIGURE}, "majority": {"accuracy": FIGURE | {"value": 0.2}}},
    "comparisons": {"majority": {"metric": "accuracy", "difference": 0.5, "low": 0.4, "high": 0.6, "p": 0.00099}},
    "slices": {},
}


def summarize(console: Console, place: Path, metrics: dict[str, Any]) -> tuple[str, Path]:
    """What is printed at the end of a run with these metrics, and the path of its report."""

    def write(out: Path) -> Product:
        (out / "metrics.json").write_text(json.dumps(metrics))
        facts = {"model": "demo", "version": "3", "alias": "candidate", "population": ["A remark on the rows."]}
        return Product(1, ("*.json",), facts)

    made, _ = Store(place).obtain(Recipe("evaluate", {}, {}, {}, {}), write)
    print_summary(console, made, made)
    return printed(console), made.path / "report.html"


def test_the_summary_ends_with_the_verdict_the_version_the_report_and_the_next_step(
    console: Console, tmp_path: Path
) -> None:
    text, report = summarize(console, tmp_path, METRICS)
    assert text.splitlines() == [
        "500 test rows [95% interval]",
        "                    accuracy  model is better by        p",
        "model     70.0% [65.0, 75.0]",
        "majority  20.0% [65.0, 75.0]  +50.0 [40.0, 60.0]  < 0.001",
        "A remark on the rows.",
        "Fine-tuning was worth it: 70.0% accuracy on 500 test rows, 50.0 points better than the baseline, most frequent"
        " class (20.0%, p < 0.001).",
        "version  demo version 3, alias candidate",
        f"report   {report}",
        "UIs      hone up",
        "next     hone promote demo",
    ]


def test_a_terminal_gets_a_report_to_click_and_as_many_metrics_as_fit(tmp_path: Path) -> None:
    names = ("macro_f1", "accuracy", "micro_f1", "ece")
    measures = dict.fromkeys(names, METRICS["measures"]["accuracy"])
    systems = {system: dict.fromkeys(names, FIGURE) for system in ("model", "majority")}
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    text, report = summarize(console, tmp_path, METRICS | {"measures": measures, "systems": systems})
    assert f";{report.as_uri()}\x1b\\" in text
    lines = re.sub(r"\x1b(\[[0-9;]*m|\]8;[^\x1b]*\x1b\\)", "", text).splitlines()
    assert lines[1].split()[:3] == ["accuracy", "macro_f1", "model"]
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
