"""`hone up` and `hone down`: start and stop the service of this data folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hone.environment import home
from hone.errors import ConfigError

DATABASES = ("prefect_database", "mlflow_database")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to the parser."""
    text = "start the servers of Prefect and MLflow and a worker, or show their URLs"
    description = f"{text[0].upper()}{text[1:]}. Options that are not given keep their previous values."
    up = commands.add_parser("up", help=text, description=description)
    up.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    up.add_argument("--auth", action=argparse.BooleanOptionalAction, help="require passwords, generated once")
    for name in DATABASES:
        library = name.split("_")[0].capitalize().replace("Mlflow", "MLflow")
        up.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="URL",
            help=f"postgresql:// URL for {library}, or '' for SQLite [HONE_{name.upper()}]",
        )
    up.add_argument(
        "--gpu-slots", type=int, metavar="N", help="maximum number of trainings at once [HONE_GPU_SLOTS, 1]"
    )
    up.add_argument(
        "--project", type=Path, metavar="FOLDER", help="move to the project in FOLDER: its conf/ and deployments/"
    )
    up.add_argument(
        "--no-notifications",
        dest="notifications",
        action="store_false",
        help="stop notifying, until `hone up` is run with HONE_NOTIFY_URL",
    )
    up.set_defaults(command=start)
    text = "stop everything that `hone up` started"
    description = f"{text[0].upper()}{text[1:]}. If `hone run` or another command uses the servers, it asks first."
    down = commands.add_parser("down", help=text, description=description)
    answer = down.add_mutually_exclusive_group()
    answer.add_argument("--wait", action="store_true", help="wait for commands that use the servers, do not ask")
    answer.add_argument("--now", action="store_true", help="end the servers although commands use them, do not ask")
    down.set_defaults(command=stop)


def start(arguments: argparse.Namespace) -> int:
    """Start the service."""
    from hone_app.service.up import Request, start_service

    options = {name: getattr(arguments, name) for name in ("host", "auth", *DATABASES)}
    for name in DATABASES:
        options[name] = options[name] if options[name] is not None else os.environ.get(f"HONE_{name.upper()}")
    settings = {name: value for name, value in options.items() if value is not None}
    request = Request(settings, arguments.project, arguments.gpu_slots, arguments.notifications)
    start_service(home(), request, _print)
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """Stop the service."""
    from hone_app.service.up import stop_service

    def may_interrupt(commands: Sequence[str]) -> bool:
        return not arguments.wait and (arguments.now or _ask(commands))

    stop_service(home(), _print, may_interrupt)
    return 0


def _ask(commands: Sequence[str]) -> bool:
    """Ask a person whether to end the servers now. Raises ConfigError if nobody can answer."""
    if not sys.stdin.isatty():
        fix = "Wait for it: `hone down --wait`, or end the servers now: `hone down --now`."
        raise ConfigError(f"is used by {', '.join(commands)}", where="the service", fix=fix)
    question = f"The service is used by {', '.join(commands)}. End it now, or wait for that? [now/WAIT] "
    return input(question).strip().lower() == "now"


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201
