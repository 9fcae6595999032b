"""`hone up` and `hone down`: the service of this data folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hone.environment import home
from hone.errors import ConfigError

DATABASES = ("prefect_database", "mlflow_database")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put both commands into the parser."""
    text = "start Prefect's and MLflow's servers and a worker, or say where they run"
    more = f"{text[0].upper()}{text[1:]}. What is not given here is as it was the last time."
    up = commands.add_parser("up", help=text, description=more)
    up.add_argument("--host", help="the address to listen on (127.0.0.1)")
    up.add_argument("--auth", action=argparse.BooleanOptionalAction, help="ask for passwords, made at random once")
    for name in DATABASES:
        library = name.split("_")[0].capitalize().replace("Mlflow", "MLflow")
        up.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="URL",
            help=f"a postgresql:// URL for {library}'s records, or '' for SQLite [HONE_{name.upper()}]",
        )
    up.add_argument("--gpu-slots", type=int, metavar="N", help="how many trainings may run at once [HONE_GPU_SLOTS, 1]")
    up.set_defaults(command=start)
    text = "end what `hone up` started"
    commands.add_parser("down", help=text, description=text).set_defaults(command=stop)


def start(arguments: argparse.Namespace) -> int:
    """Bring the service up."""
    from hone_app.service.up import start_service

    options = {name: getattr(arguments, name) for name in ("host", "auth", *DATABASES)}
    for name in DATABASES:
        options[name] = options[name] if options[name] is not None else os.environ.get(f"HONE_{name.upper()}")
    settings = {name: value for name, value in options.items() if value is not None}
    start_service(home(), settings, find_project(), arguments.gpu_slots, _print)
    return 0


def stop(_: argparse.Namespace) -> int:
    """End the service."""
    from hone_app.service.up import stop_service

    stop_service(home(), _print)
    return 0


def find_project() -> Path:
    """The folder whose conf/ and deployments/ are used: the working directory, else the one that Hone lies in."""
    for folder in (Path.cwd(), Path(__file__).parents[3]):
        if (folder / "deployments/prefect.yaml").is_file():
            return folder
    raise ConfigError(
        "there is no deployments/prefect.yaml", where=str(Path.cwd()), fix="Call `hone up` in the project's folder."
    )


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201
