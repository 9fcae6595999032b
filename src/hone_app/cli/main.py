"""The `hone` command. Exit status: see hone.errors; 130 after an interruption."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import hone
from hone.disk import describe_disk_fault
from hone.environment import DEFAULTS, Home, close_home, home
from hone.errors import ConfigError, HoneError, StoreError
from hone_app.cli import batch, completion, drift, gc, promotion, rows, service, sweep
from hone_app.cli.arguments import add_config
from hone_app.cli.line import load, run_finetune
from hone_app.cli.orchestration import end_at_once
from hone_app.service.up import join_service

if TYPE_CHECKING:
    from rich.console import Console

    from hone.pipeline.plan import StagePlan

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Errors that Hone raises are printed without a traceback."""
    os.environ.update({name: value for name, value in DEFAULTS.items() if name not in os.environ})
    if not sys.warnoptions:  # FutureWarnings of libraries are for Hone's developers, not its users
        warnings.simplefilter("ignore", FutureWarning)
    status = _run_command(sys.argv[1:] if argv is None else argv)
    end_at_once(status)
    return status


def _run_command(words: Sequence[str]) -> int:
    try:
        arguments = _parse(words)
        if arguments.command not in WITHOUT_DATA and (closed := close_home(home())):
            print(f"hone: {closed}", file=sys.stderr)  # noqa: T201
        if arguments.command not in ALONE:
            join_service(home())
        status: int = arguments.command(arguments)
    except HoneError as fault:
        return _report(fault)
    except KeyboardInterrupt:
        print("\nhone: interrupted; run the same command again to continue.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe: `hone schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as fault:
        disk_fault = describe_disk_fault(fault)
        if disk_fault is None:
            raise
        what, file = disk_fault
        fix = "Free or extend the disk, make it writable, or set HONE_HOME to another one; finished stages are kept."
        return _report(StoreError(f"could not be read or written: {what}", where=file or str(home().root), fix=fix))
    return status


def _report(fault: HoneError) -> int:
    """Print an error and the page of the documentation to read next; returns the exit status."""
    print(f"hone: {fault}\n  See {fault.page}.", file=sys.stderr)  # noqa: T201
    return fault.exit_code


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments and their `command`. Raises ConfigError for a command that does not exist."""
    parser, names = _parser()
    if words and not words[0].startswith("-") and words[0] not in names:
        similar = difflib.get_close_matches(words[0], names, 1, cutoff=0.5)
        hint = f"Did you mean `hone {similar[0]}`?" if similar else "See `hone --help`."
        raise ConfigError("no such command", where=words[0], fix=hint)
    return parser.parse_args(words)


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """The parser, and the names of the commands."""
    parser = argparse.ArgumentParser(
        prog="hone",
        description="Fine-tune transformer models you can trust enough to promote.",
        epilog="Begin with `hone run demo`. Your own data: docs/fine-tune-your-data.md.",
    )
    parser.set_defaults(command=_print_help, parser=parser)
    parser.add_argument(
        "--version", dest="command", action="store_const", const=_print_version, help="show the version"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "train and register a model version"),
        ("plan", _plan, "show which stages would run, which are cached, and why"),
        ("verify", _verify, "check the run's artifacts against their digests"),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_config(sub)
        sub.set_defaults(command=command)
    text = "print the JSON schema of the configuration"
    schema = commands.add_parser("schema", help=text, description=f"{text[0].upper()}{text[1:]}.")
    schema.set_defaults(command=_schema)
    sweep.add_commands(commands)
    rows.add_commands(commands)
    service.add_commands(commands)
    promotion.add_commands(commands)
    drift.add_commands(commands)
    batch.add_commands(commands)
    gc.add_commands(commands)
    completion.add_commands(commands)
    return parser, commands.choices


def _print_version(_: argparse.Namespace) -> int:
    _print(f"hone {hone.__version__}")
    return 0


def _print_help(arguments: argparse.Namespace) -> int:
    _print(arguments.parser.format_help().rstrip())
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from hone.pipeline.plan import plan_run
    from hone_app.cli.view import make_console

    config, data, console = load(arguments), home(), make_console()
    stage_plans = plan_run(config, data)
    if all(stage_plan.artifact for stage_plan in stage_plans):
        console.print(f"{config.name}: every stage is up to date, nothing to do.", style="bold")
        return _finish(console, stage_plans, data)
    run_finetune(config, data, console)
    return _finish(console, plan_run(config, data), data)


def _finish(console: Console, stage_plans: Sequence[StagePlan], data: Home) -> int:
    from hone_app.cli.view import print_summary

    artifacts = {stage_plan.stage: stage_plan.artifact for stage_plan in stage_plans if stage_plan.artifact}
    print_summary(console, artifacts["evaluate"], artifacts["register"])
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from hone.pipeline.plan import plan_run
    from hone_app.cli.view import make_console, print_plan

    print_plan(make_console(), plan_run(load(arguments), home()))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from hone.pipeline.verify import verify_run

    verification = verify_run(load(arguments), home())
    version_fault = verification.version_fault
    if verification.faults:
        faults = [*verification.faults, *([str(version_fault)] if version_fault else [])]
        raise StoreError("\n".join(faults), fix="Delete the artifacts' directories: the next run makes them again.")
    if version_fault:
        raise version_fault
    _print(f"{len(verification.intact)} artifacts, all digests match")
    for name, reason in verification.unverified.items():
        _print(f"{name} was not verified: {reason}")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from hone.config.sections import RunConfig

    _print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# The commands that do not use the data folder, and those that do not use the service.
WITHOUT_DATA = (_print_version, _print_help, _schema, completion.complete)
ALONE = (*WITHOUT_DATA, service.start, service.stop)

if __name__ == "__main__":
    sys.exit(main())
