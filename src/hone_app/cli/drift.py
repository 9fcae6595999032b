"""`hone monitor`: compares recent inputs with the rows that a model was trained on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_app.cli.arguments import add_config
from hone_app.cli.orchestration import orchestrated, run_flow

if TYPE_CHECKING:
    from rich.console import Console

    from hone.drift.check import Verdict


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `monitor` to the commands."""
    text = "compare recent inputs with the champion's training rows"
    sub = commands.add_parser("monitor", help=text, description=f"{text[0].upper()}{text[1:]}.")
    add_config(sub)
    sub.add_argument(
        "--inputs", action="append", default=[], metavar="PATH", help="file or glob (default: monitoring.inputs)"
    )
    sub.set_defaults(command=monitor)


def monitor(arguments: argparse.Namespace) -> int:
    """Check once and print the tests and the verdict; the exit status is 0 with and without drift."""
    from pydantic import TypeAdapter

    from hone.config.file import load_config
    from hone.config.parts import SourcePart
    from hone.environment import home
    from hone.errors import ConfigError
    from hone_app.cli.view import make_console

    config, data = load_config(arguments.config, arguments.overrides), home()
    if not arguments.inputs and config.monitoring.inputs is None:
        fix = "Use --inputs PATH, or set monitoring.inputs in the configuration."
        raise ConfigError("has no source of recent inputs", where=str(arguments.config), fix=fix)
    paths = [str(Path(path).absolute()) if "://" not in path else path for path in arguments.inputs]
    inputs = TypeAdapter(SourcePart).validate_python({"kind": "files", "paths": paths}) if paths else None
    console = make_console()
    with console.status("comparing recent inputs with the training rows"):
        with orchestrated(data):
            from flows.monitor import monitor as flow

        state: Any = run_flow(data, flow, config, inputs=inputs, return_state=True)
    for checked in state.result():
        print_tests(console, checked.verdict)
    console.print(state.message, soft_wrap=True, highlight=False)
    return 0


def print_tests(console: Console, verdict: Verdict) -> None:
    """Print a row for each test of a check; nothing if there were too few rows for tests."""
    from rich.text import Text

    from hone.drift.report import build_table, describe_power
    from hone_app.cli.view import make_table, print_table

    columns = ("test", "effect", "corrected p", "drift", "what changed")
    table = make_table(*columns, numbers=("effect", "corrected p"))
    for finding, row in zip(verdict.findings, build_table(verdict), strict=True):
        style = "bold red" if finding.drifted else ""
        table.add_row(*(Text(row[column], style if column == "drift" else "") for column in columns))
    if table.row_count:
        print_table(console, table)
        console.print(describe_power(verdict), highlight=False)
