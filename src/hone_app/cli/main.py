"""The `hone` command. Exit status: see hone.errors; 130 after an interruption."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hone.environment import DEFAULTS, Home, home
from hone.errors import HoneError
from hone_app.cli import batch, drift, promotion, service
from hone_app.cli.orchestration import orchestrated
from hone_app.service.up import join

if TYPE_CHECKING:
    from rich.console import Console

    from hone.config.sections import RunConfig
    from hone.pipeline.plan import Outlook

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. Errors that Hone knows are printed without a traceback."""
    arguments = _parser().parse_args(argv)
    os.environ.update({name: value for name, value in DEFAULTS.items() if name not in os.environ})
    if not sys.warnoptions:  # what will change in a library is for those who call it
        warnings.simplefilter("ignore", FutureWarning)
    try:
        if arguments.command not in (service.start, service.stop):
            join(home())
        status: int = arguments.command(arguments)
    except HoneError as fault:
        print(f"hone: {fault}", file=sys.stderr)  # noqa: T201
        return fault.exit_code
    except KeyboardInterrupt:
        print("\nhone: interrupted; the same command goes on from here.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:  # who read this has seen enough: `hone schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hone", description="Fine-tune transformer models you can trust enough to promote."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "raw text in, a registered model version out"),
        ("plan", _plan, "what would run, what is cached, and why"),
        ("verify", _verify, "read the bytes of the run's artifacts again and compare them with their digests"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("config", type=Path, metavar="CONF", help="a YAML file, such as conf/demo.yaml")
        sub.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
        sub.set_defaults(command=command)
    commands.add_parser("schema", help="the JSON schema of the configuration").set_defaults(command=_schema)
    service.add(commands)
    promotion.add(commands)
    drift.add(commands)
    batch.add(commands)
    return parser


def _load(arguments: argparse.Namespace) -> RunConfig:
    from hone.config.file import load_config
    from hone.pipeline.stage import pin_base

    config = pin_base(load_config(arguments.config, arguments.overrides), home())
    if config.model.trust_code:
        warning = f"hone: warning: the code of {config.model.trust_code} is run, as model.trust_code says."
        print(warning, file=sys.stderr)  # noqa: T201
    return config


def _run(arguments: argparse.Namespace) -> int:
    from hone.pipeline.plan import plan
    from hone_app.cli.view import terminal

    config, data, console = _load(arguments), home(), terminal()
    outlooks = plan(config, data)
    if all(look.artifact for look in outlooks):
        console.print(f"{config.name}: every stage is up to date, nothing to do.", style="bold")
        return _finish(console, outlooks, data)
    _line(config, data, console)
    return _finish(console, plan(config, data), data)


def _line(config: RunConfig, data: Home, console: Console) -> None:
    """Run the flow."""
    from hone.pipeline.run import run_ahead
    from hone.pipeline.stages import stages_of
    from hone.tracking.client import prepare
    from hone_app.cli.view import watching

    with watching(stages_of(config), console):
        with orchestrated(data) as starting:
            # A new MLflow store takes seconds to make: meanwhile the Prefect server starts and the first rows are read.
            # Not a daemon: what it has begun it ends, however soon the run does.
            threading.Thread(target=_prepare_quietly, args=(prepare, data)).start()
            from flows.finetune import finetune

            # The first start in a data folder makes a database, half a minute's work on one core.
            run_ahead(config, data, starting)
        finetune(config)


def _prepare_quietly(prepare: Callable[[str], None], data: Home) -> None:
    # What is wrong with the place is told by the stage that cannot do without it.
    with suppress(OSError):
        prepare(data.tracking_uri)


def _finish(console: Console, outlooks: Sequence[Outlook], data: Home) -> int:
    from hone_app.cli.view import summary

    found = {look.stage: look.artifact for look in outlooks if look.artifact}
    summary(console, found["evaluate"], found["register"], "hone up")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from hone.pipeline.plan import plan
    from hone_app.cli.view import outlook, terminal

    outlook(terminal(), plan(_load(arguments), home()))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from hone.errors import StoreError
    from hone.pipeline.plan import plan

    data = home()
    found = [look.artifact for look in plan(_load(arguments), data) if look.artifact]
    faults = [fault for artifact in found for fault in data.store.verify(artifact)]
    if faults:
        raise StoreError("\n".join(faults), fix="Delete these directories: the next run makes them again.")
    _say(f"{len(found)} artifacts, every byte as it was written")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from hone.config.sections import RunConfig

    _say(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
