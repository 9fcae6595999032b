"""`hone sweep`: tries values of the configuration's fields and registers the best model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hone.environment import home
from hone_app.cli.arguments import add_config
from hone_app.cli.line import load, run_sweep

if TYPE_CHECKING:
    from rich.console import Console

    from hone.store.artifact import Artifact

ROWS = 8  # trials in the table


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sweep` to the commands."""
    text = "try values of sweep.space and register the best model"
    sub = commands.add_parser("sweep", help=text, description=f"{text[0].upper()}{text[1:]}.")
    add_config(sub)
    sub.add_argument(
        "--suggest", action="store_true", help="print a space for the configuration's method and objective, and end"
    )
    sub.set_defaults(command=sweep)


def sweep(arguments: argparse.Namespace) -> int:
    """Run the sweep, or continue it, and print its best trials and the version."""
    from hone.sweep.suggest import render_suggestion
    from hone.sweep.trial_config import check_space
    from hone_app.cli.view import make_console, print_summary

    config, data, console = load(arguments), home(), make_console()
    if arguments.suggest:
        console.print(render_suggestion(config), highlight=False, soft_wrap=True)
        return 0
    check_space(config)
    state = run_sweep(config, data, console)
    artifacts: dict[str, Artifact] = state.result()
    print_trials(console, artifacts["sweep"])
    print_summary(console, artifacts["evaluate"], artifacts["register"])
    return 0


def print_trials(console: Console, tried: Artifact) -> None:
    """Print the best complete trials of a sweep, and how many there were."""
    from rich.text import Text

    from hone.evaluation.report.report_sweep import sweep as build_view
    from hone.store import layout
    from hone_app.cli.view import make_table, print_table

    view: dict[str, Any] = build_view(tried.read_json(layout.SWEEP))
    numbers = ["trial", view["metric"].lower(), *view["names"]]
    table = make_table(*numbers, numbers=numbers)
    for row in view["rows"][:ROWS]:
        style = "bold" if row["best"] else ""
        table.add_row(*(Text(str(cell), style) for cell in (row["number"], row["figure"], *row["values"])))
    print_table(console, table)
    console.print(view["takeaway"], highlight=False, soft_wrap=not console.is_terminal)
    for number, reason in view["failed"][:1]:
        console.print(f"trial {number} failed: {reason}", style="yellow", highlight=False, soft_wrap=True)
    console.print()
