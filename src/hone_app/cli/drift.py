"""`hone monitor`: recent inputs against the rows that a model was made from."""

from __future__ import annotations

import argparse
from pathlib import Path

from hone_app.cli.orchestration import orchestrated


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands of drift."""
    text = "compare recent inputs with the rows that the model's champion was made from"
    sub = commands.add_parser("monitor", help=text, description=text)
    sub.add_argument("config", type=Path, metavar="CONF", help="a YAML file, such as conf/demo.yaml")
    sub.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
    sub.add_argument(
        "--inputs", action="append", default=[], metavar="PATH", help="a file or glob; else what monitoring.inputs says"
    )
    sub.set_defaults(command=monitor)


def monitor(arguments: argparse.Namespace) -> int:
    """Check once and print what was found; 0 whether it is drift or not."""
    from pydantic import TypeAdapter

    from hone.config.file import load_config
    from hone.config.parts import SourcePart
    from hone.environment import home
    from hone.errors import ConfigError

    config, data = load_config(arguments.config, arguments.overrides), home()
    if not arguments.inputs and config.monitoring.inputs is None:
        fix = "Give --inputs PATH, or set monitoring.inputs in the configuration."
        raise ConfigError("says not where recent inputs are", where=str(arguments.config), fix=fix)
    with orchestrated(data):
        from flows.monitor import monitor as flow

    given = [str(Path(path).absolute()) if "://" not in path else path for path in arguments.inputs]
    inputs = TypeAdapter(SourcePart).validate_python({"kind": "files", "paths": given}) if given else None
    state = flow(config, inputs=inputs, return_state=True)
    state.result()
    print(state.message)  # noqa: T201
    return 0
