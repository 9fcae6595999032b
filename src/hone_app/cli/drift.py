"""`hone monitor`: compares recent inputs with the rows that a model was trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

from hone_app.cli.arguments import add_config
from hone_app.cli.orchestration import orchestrated


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
    """Check once and print the verdict; the exit status is 0 with and without drift."""
    from pydantic import TypeAdapter

    from hone.config.file import load_config
    from hone.config.parts import SourcePart
    from hone.environment import home
    from hone.errors import ConfigError

    config, data = load_config(arguments.config, arguments.overrides), home()
    if not arguments.inputs and config.monitoring.inputs is None:
        fix = "Use --inputs PATH, or set monitoring.inputs in the configuration."
        raise ConfigError("has no source of recent inputs", where=str(arguments.config), fix=fix)
    with orchestrated(data):
        from flows.monitor import monitor as flow

    paths = [str(Path(path).absolute()) if "://" not in path else path for path in arguments.inputs]
    inputs = TypeAdapter(SourcePart).validate_python({"kind": "files", "paths": paths}) if paths else None
    state = flow(config, inputs=inputs, return_state=True)
    state.result()
    print(state.message)  # noqa: T201
    return 0
