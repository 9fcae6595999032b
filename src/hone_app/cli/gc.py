"""`hone gc`: lists what nothing needs any more, and removes it."""

from __future__ import annotations

import argparse
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hone.store.retention import Garbage


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `gc` to the commands."""
    text = "list what nothing needs any more, and remove it with --yes"
    sub = commands.add_parser("gc", help=text, description=f"{text[0].upper()}{text[1:]}.")
    sub.add_argument("--yes", action="store_true", help="remove what is listed")
    sub.add_argument(
        "--days", type=int, metavar="N", help="leave what was used in the last N days [HONE_KEEP_DAYS, 30]"
    )
    sub.add_argument(
        "--versions",
        type=int,
        metavar="N",
        help="also remove model versions without an alias, except the newest N of each model [HONE_KEEP_VERSIONS, 0: "
        "leave all]",
    )
    sub.set_defaults(command=collect)


def collect(arguments: argparse.Namespace) -> int:
    """List what nothing needs; remove it with --yes."""
    from hone.environment import home, load_retention
    from hone.evaluation.report import figures
    from hone.pipeline.garbage import list_garbage
    from hone.store.retention import measure_freed
    from hone_app.cli.view import make_console
    from hone_app.service.up import check_stores

    retention, data, console = load_retention(arguments.days, arguments.versions), home(), make_console()
    check_stores(data)
    garbage = list_garbage(data, retention)
    for line in describe_garbage(garbage):
        console.print(line, highlight=False, soft_wrap=True)
    size = figures.size(measure_freed(path for item in garbage for path in item.paths))
    if not arguments.yes:
        fix = f"{size} can be freed. Remove it: hone gc --yes" if garbage else "Nothing to remove."
        console.print(fix, style="bold", soft_wrap=True)
        return 0
    removed = sum(item.remove() for item in garbage)
    in_use = f"; {len(garbage) - removed} are in use now and stay" if removed < len(garbage) else ""
    console.print(f"{removed} of {len(garbage)} removed, about {size}{in_use}.", style="bold", soft_wrap=True)
    return 0


def describe_garbage(garbage: Sequence[Garbage]) -> list[str]:
    """For each kind its number and size, and below it each item with its size and reason."""
    from hone.evaluation.report import figures
    from hone.store.retention import measure_freed

    lines = []
    for kind, group in groupby(garbage, key=lambda item: item.kind):
        items = list(group)
        size = figures.size(measure_freed(path for item in items for path in item.paths))
        lines.append(f"{kind}: {len(items)}, {size}")
        lines += [f"  {figures.size(measure_freed(item.paths)):>9}  {item.name}: {item.reason}" for item in items]
    return lines
