"""The terminal view of a run: a line for each stage while it runs, a table when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from hone.display import escape_controls
from hone.evaluation.report.figures import NONE, has_width, p_value
from hone.evaluation.report.headline import describe_verdict
from hone.evaluation.report.report_benchmarks import describe_benchmarks
from hone.evaluation.report.report_bias import describe_bias
from hone.evaluation.report.report_rivals import list_rival_notes, rivals
from hone.progress import Listener, Pace, Progress, listening
from hone.store import layout
from hone.store.artifact import Artifact

PLAIN_SECONDS = 10.0  # between progress lines where output is not a terminal, such as a log file
SELDOM = ("sweep",)  # stages whose reports are few: each is printed
PLAIN_WIDTH = 1000  # columns of such output, so that no table wraps in it
# With it, a line of a training (steps, rate, remaining time, loss) has 80 columns.
BAR = 12
MARKS = {"": " ", "started": "▶", "waiting": "…", "hit": "=", "done": "✓", "failed": "✗"}
COLOURS = {"started": "cyan", "waiting": "yellow", "hit": "blue", "done": "green", "failed": "red"}


class _SafeConsole(Console):
    """Shows control characters of labels, rows and names instead of sending them to the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_escape, objects), **options)


class _SafeTable(Table):
    """A table whose cells do the same: escaped before they are measured."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_escape, cells), **options)


def _escape(shown: Any) -> Any:
    """A text with visible control characters; without its styles if it has any. Other objects as they are."""
    if isinstance(shown, str):
        return escape_controls(shown)
    if isinstance(shown, Padding):
        shown.renderable = _escape(shown.renderable)
    if isinstance(shown, Text) and (visible := escape_controls(shown.plain)) != shown.plain:
        return Text(visible, shown.style, overflow=shown.overflow, no_wrap=shown.no_wrap)
    return shown


def make_console() -> Console:
    """Standard output without rich's markup: users' names, reasons and paths may contain brackets."""
    return _SafeConsole(markup=False)


@dataclass
class Line:
    """The state of one stage."""

    event: str = ""
    since: float = 0.0
    seconds: float = 0.0
    pace: Pace = field(default_factory=Pace)
    reasons: Sequence[str] = ()
    artifact: Artifact | None = None
    notes: Sequence[str] = ()

    def update(self, event: str, detail: object, now: float) -> None:
        """Apply an event (`hone.progress`) of the stage at time `now`, in seconds."""
        if isinstance(detail, Progress):
            self.pace.add(detail, now)
            return
        if event == "started":
            self.since, self.reasons = now, detail if isinstance(detail, list) else ()
            self.pace = Pace()  # a sweep starts a stage once for each trial
        if event in ("done", "failed") and self.since:
            self.seconds = now - self.since
        if event in ("done", "hit") and self.event not in ("done", "hit"):
            self.artifact = detail if isinstance(detail, Artifact) else None
            self.notes = _list_notes(self.artifact)
        if not (event == "hit" and self.event == "done"):
            self.event = event

    @property
    def progress(self) -> Progress | None:
        """The latest report."""
        return self.pace.progress

    def text(self, now: float) -> str:
        """One line about the stage: the activity and its reason, progress and remaining time, or the result."""
        if self.event == "hit":
            return " · ".join(["up to date", *_describe_rows(self.artifact)])
        if self.event == "done":
            return " · ".join([f"{self.seconds:.1f} s", *_describe_rows(self.artifact)])
        if self.event == "waiting":
            return "waiting for another run that is making it"
        if self.event == "failed":
            return f"failed after {self.seconds:.1f} s"
        if self.event != "started":
            return ""
        if self.progress is None or not self.progress.done:
            activity = self.progress.note if self.progress else ""
            return " · ".join([activity or "starting", *(["; ".join(self.reasons[:3])] if self.reasons else [])])
        return " · ".join(self.pace.describe())


@dataclass
class Board:
    """The lines of all stages, in order."""

    lines: dict[str, Line] = field(default_factory=dict)

    def fail(self, now: float) -> None:
        """Show that the stages that have started and not ended failed at time `now`, in seconds."""
        for line in self.lines.values():
            if line.event == "started":
                line.update("failed", None, now)

    def render(self) -> Table:
        """A grid: mark, stage, progress bar, words; and a row for each note on the stage. Nothing in it wraps."""
        grid = _SafeTable.grid(padding=(0, 1))
        for width in (1, 9, BAR, None):
            grid.add_column(width=width, no_wrap=width is not None)  # rich narrows only the column that may wrap
        now = time.monotonic()
        for name, line in self.lines.items():
            colour = COLOURS.get(line.event, "bright_black")
            grid.add_row(
                Text(MARKS[line.event], colour), Text(name, colour), _bar(line, colour), _cut_text(line.text(now))
            )
            for note in line.notes:
                grid.add_row("", "", "", _cut_text(note))
        return grid


def _cut_text(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")


def _bar(line: Line, colour: str) -> ProgressBar | Text:
    """The stage's bar: full when it is done, moving while its total is unknown."""
    if line.event not in ("started", "hit", "done"):
        return Text("")
    total, done = (line.progress.total, line.progress.done) if line.progress else (0, 0)
    if line.event != "started":
        total, done = 1, 1
    return ProgressBar(total or None, done, width=BAR, pulse=not total, complete_style=colour, finished_style=colour)


@contextmanager
def show_progress(stages: Sequence[str], console: Console) -> Iterator[Board]:
    """Show the progress of the stages within the block: live on a terminal, else in plain lines. Yields the board."""
    board = Board({stage: Line() for stage in stages})
    if console.is_terminal:
        # rich redraws in a thread of its own, four times a second.
        with Live(console=console, get_renderable=board.render, refresh_per_second=4) as live:
            try:
                with listening(_update_board(board)):
                    yield board
            except Exception:
                board.fail(time.monotonic())
                raise
            finally:  # what is refused before its first stage leaves no empty lines
                live.transient = not any(line.event for line in board.lines.values())
    else:
        with listening(_print_plainly(board, console)):
            yield board


def _update_board(board: Board) -> Listener:
    def on_event(stage: str, event: str, detail: object) -> None:
        board.lines[stage].update(event, detail, time.monotonic())

    return on_event


def _print_plainly(board: Board, console: Console) -> Listener:
    printed = {"at": time.monotonic()}

    def on_event(stage: str, event: str, detail: object) -> None:
        line, now = board.lines[stage], time.monotonic()
        previous_event = line.event
        line.update(event, detail, now)
        if event == "progress" and now - printed["at"] < PLAIN_SECONDS and stage not in SELDOM:
            return
        if event != "progress" and line.event == previous_event:
            return
        printed["at"] = now
        words = " · ".join([line.text(now), *line.notes])
        with suppress(OSError):  # nobody reads it any more, or its disk is full
            console.print(f"{stage:<9} {words}".rstrip(), highlight=False, soft_wrap=True)

    return on_event


def make_table(*columns: str, numbers: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """An empty table in the one style of the terminal.

    The columns `numbers` are right-aligned; neither they nor the columns `whole` wrap.
    """
    table = _SafeTable(box=None, pad_edge=False)
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold", no_wrap=column in whole)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table; where output is not a terminal, without wrapping and without blanks at the ends of lines."""
    if console.is_terminal:
        console.print(table)
        return
    for segments in console.render_lines(table, console.options.update_width(PLAIN_WIDTH), pad=False):
        console.print("".join(segment.text for segment in segments).rstrip(), highlight=False, soft_wrap=True)


def print_note(console: Console, note: str) -> None:
    """Print an indented note; where output is not a terminal, without wrapping."""
    text = Text(escape_controls(note), "dim")
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 2), expand=False))
    else:
        console.print(Text.assemble("  ", text), soft_wrap=True)


def print_plan(console: Console, stage_plans: Sequence[Any]) -> None:
    """Print what each stage would do: hit, pending, or miss with its reasons."""
    grid = _SafeTable.grid(padding=(0, 2))
    for stage_plan in stage_plans:
        word, colour = ("hit", "blue") if stage_plan.artifact else ("miss", "yellow")
        if stage_plan.reasons and stage_plan.reasons[0].startswith("waits for"):
            word, colour = "pending", "bright_black"
        detail = str(stage_plan.artifact.path) if stage_plan.artifact else "\n".join(stage_plan.reasons)
        grid.add_row(stage_plan.stage, Text(word, colour), Text(detail, overflow="fold"))
    print_table(console, grid)


def print_summary(console: Console, evaluated: Artifact, registered: Artifact) -> None:
    """Print the metrics of model and baselines, the verdict, the version, the report, and the next commands."""
    metrics = evaluated.read_json(layout.METRICS)
    version = registered.facts()
    title = f"{metrics['rows']:,} test rows [{metrics['confidence']:.0%} interval]"
    console.print(title, highlight=False)
    print_table(console, _fit_table(metrics, console.width if console.is_terminal else PLAIN_WIDTH))
    for note in list_rival_notes(metrics):
        print_note(console, note)
    sentences = (*version.get("population", ()), *describe_bias(metrics), *describe_benchmarks(metrics))
    for sentence in (*sentences, Text(describe_verdict(metrics), "bold")):
        console.print(sentence, highlight=False, soft_wrap=not console.is_terminal)
    report = registered.path / layout.REPORT
    lines: dict[str, str | Text] = {
        "version": f"{version['model']} version {version['version']}, alias {version['alias']}",
        "report": Text(str(report), Style(link=report.as_uri())),
        "UIs": "hone up",
        "next": Text(f"hone promote {version['model']}", "bold"),
    }
    print_lines(console, lines)


def print_lines(console: Console, values: Mapping[str, str | Text]) -> None:
    """Print a name and a value on each line, without wrapping: a path that is broken across lines cannot be opened."""
    width = max(map(len, values))
    for name, value in values.items():
        console.print(Text.assemble(f"{name:<{width}}  ", value), soft_wrap=True)


def _fit_table(metrics: Mapping[str, Any], width: int) -> Table:
    """The metrics that all systems have, the main one first, as many as fit into `width`; the report has all."""
    systems, main = metrics["systems"], metrics["main_metric"]
    names = [name for name in systems["model"] if all(name in figures for figures in systems.values())]
    names.sort(key=lambda name: name != main)
    measuring = Console(width=PLAIN_WIDTH)
    tables = (_table(metrics, names[:count]) for count in range(len(names), 0, -1))
    return next((table for table in tables if measuring.measure(table).maximum <= width), _table(metrics, [main]))


def _table(metrics: Mapping[str, Any], names: Sequence[str]) -> Table:
    """The metrics `names` of all systems, and by how much the model is better."""
    systems = metrics["systems"]
    share = {name: measure["share"] for name, measure in metrics["measures"].items()}
    numbers = [*names, "model is better by", "p"]
    table = make_table("", *numbers, numbers=numbers)
    prompted = {_name_rival(view): view for view in rivals(metrics)}
    comparisons = {**metrics["comparisons"], **{name: view["comparison"] for name, view in prompted.items()}}
    for system, figures in {**systems, **{name: view["theirs"] for name, view in prompted.items()}}.items():
        comparison = comparisons.get(system)
        comparison_cells = ["", ""]
        if comparison:
            interval = _interval(comparison | {"value": comparison["difference"]}, share[comparison["metric"]], "+")
            probability = p_value(comparison["p"]).removeprefix("p ").removeprefix("= ")
            comparison_cells = [interval.replace("%", ""), probability]
        cells = (_interval(figures[name], share[name]) if name in figures else NONE for name in names)
        table.add_row(system, *cells, *comparison_cells)
    return table


def _name_rival(view: Mapping[str, Any]) -> str:
    """Its name, and the number of rows that it was asked unless that is all."""
    return f"{view['name']}, {view['rows']:,} rows" if " of " in view["asked"] else str(view["name"])


def _interval(figure: Mapping[str, float], share: bool, sign: str = "") -> str:
    """`69.1% [63.9, 74.2]` for a share, `3.307 [3.25, 3.364]` for another number, which may have no interval."""
    if not share and not has_width(figure["low"], figure["high"]):
        return f"{figure['value']:{sign}.4g}"
    if not share:
        return "{:{sign}.4g} [{:.4g}, {:.4g}]".format(*(figure[name] for name in ("value", "low", "high")), sign=sign)
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:{sign}.1f}% [{low:.1f}, {high:.1f}]"


def _describe_rows(artifact: Artifact | None) -> list[str]:
    if artifact is None:
        return []
    return [f"{artifact.rows:,} {'trials' if artifact.stage == 'sweep' else 'rows'}"]


def _list_notes(artifact: Artifact | None) -> list[str]:
    """What ingest left out or converted: "41 texts whose span offsets count utf-16, converted"."""
    if artifact is None or artifact.stage != "ingest" or not artifact.path.is_dir():
        return []
    facts = artifact.facts()
    skipped = [f"{count:,} rows left out ({reason})" for reason, count in facts.get("skipped", {}).items()]
    return [*skipped, *(f"{count:,} {note}" for note, count in facts.get("notes", {}).items())]
