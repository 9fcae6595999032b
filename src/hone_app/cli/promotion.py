"""`hone promote`, `hone rollback`, `hone history`: the champion of a registered model."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from hone.environment import home
from hone.errors import ConfigError, PromotionRefused, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from hone.promotion.decision import Decision
    from hone.promotion.journal import Journal


def add(commands: Any) -> None:
    """Put the commands into the parser of `hone`."""
    promote = _command(commands, "promote", _promote, "compare a version with the champion; make it the champion")
    promote.add_argument("--version", default="", metavar="V", help="its number; the alias candidate's by default")
    promote.add_argument("--policy", choices=("manual", "auto", "shadow"), help="in place of the configuration's")
    promote.add_argument("--golden", default="", metavar="FILE", help="a golden set, in place of the configuration's")
    promote.add_argument("--yes", action="store_true", help="approve it, once the gates have passed")
    _by_whom(promote)
    rollback = _command(commands, "rollback", _rollback, "make the former champion the champion again")
    _by_whom(rollback, why=True)
    _command(commands, "history", _history, "who moved the champion, when, from where to where, and why")


def _command(commands: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    sub.add_argument("model", metavar="MODEL", help="the registered model's name")
    sub.set_defaults(command=command)
    return sub


def _by_whom(sub: argparse.ArgumentParser, why: bool = False) -> None:
    sub.add_argument("--why", required=why, default="", metavar="TEXT", help="the reason, for the journal")
    sub.add_argument("--who", default="", metavar="NAME", help="who decides; your user name by default")


def _journal(model: str) -> Journal:
    from hone.promotion.promote import open_journal
    from hone_app.service.up import check_stores

    data = home()
    check_stores(data)
    return open_journal(data.tracking_uri, model)


def _promote(arguments: argparse.Namespace) -> int:
    from hone.promotion import promote
    from hone_app.cli.view import terminal

    console, journal, who = terminal(), _journal(arguments.model), arguments.who or promote.current_user()
    decision = promote.decide(
        journal,
        arguments.version,
        downloads=home().downloads,
        policy=arguments.policy or "",
        golden=arguments.golden,
    )
    page = promote.log_decision(journal, decision)
    _show(console, decision)
    console.print(f"{page} in MLflow run {decision.run_id}", style="dim")
    if decision.policy == "shadow":
        promote.journal_shadow(journal, decision, who)
        console.print(
            f"Shadow: nothing moved; it {'would have' if decision.passed else 'would not'} become the champion."
        )
        return 0
    why = arguments.why
    if decision.passed and decision.policy == "manual" and not arguments.yes:
        approved, why = _asked(decision, why)
        if not approved:
            promote.refuse(journal, decision, who, why or "rejected")
            raise PromotionRefused(f"rejected by {who}", where=f"{decision.model} version {decision.version}")
    with console.status("testing how it is served, and moving the alias"):
        moved = promote.promote_version(journal, decision, who=who, why=why, downloads=home().downloads).entry
    former = f", version {moved.from_version} the former one" if moved.from_version else ""
    console.print(f"{decision.model} version {moved.to_version} is the champion{former}.", style="bold green")
    return 0


def _asked(decision: Decision, why: str) -> tuple[bool, str]:
    """Whether the person at the terminal approves, and why."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "the policy is manual, and there is nobody to ask",
            where=f"hone promote {decision.model}",
            fix="Say --yes to approve it, or --policy auto.",
        )
    answer = input(f"Make version {decision.version} the champion? [y/N] ").strip().lower()
    return answer in ("y", "yes"), why or input("Why? ").strip()


def _show(console: Console, decision: Decision) -> None:
    from rich.table import Table
    from rich.text import Text

    from hone.promotion.decision import format_figure

    against = f"champion, version {decision.champion}" if decision.champion else "baselines: there is no champion"
    table = Table(title=f"{decision.model} version {decision.version} against the {against}", title_justify="left")
    for column in ("gate", "rows", "found", "asked for", "passed", ""):
        table.add_column(column)
    for gate in decision.gates:
        passed = Text("yes", "green") if gate.passed else Text("no", "bold red")
        table.add_row(gate.name, gate.rows, format_figure(gate), gate.bound, passed, gate.note)
    console.print(table)


def _rollback(arguments: argparse.Namespace) -> int:
    from hone.promotion import promote
    from hone_app.cli.view import terminal

    who = arguments.who or promote.current_user()
    moved = promote.rollback(_journal(arguments.model), who=who, why=arguments.why, downloads=home().downloads).entry
    said = f"version {moved.to_version} is the champion again, version {moved.from_version} the former one."
    terminal().print(f"{arguments.model} {said}", style="bold green")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from rich.padding import Padding
    from rich.text import Text

    from hone.promotion.journal import find_faults
    from hone_app.cli.view import terminal

    console, records = terminal(), _journal(arguments.model).records()
    if not records:
        console.print(f"{arguments.model} never had a champion that Hone knows of.")
    width = len(str(len(records)))
    for kept in records:
        entry = kept.entry
        unfinished = " (unfinished)" if kept.state == "begun" else ""
        versions = f"{entry.from_version or '–'} to {entry.to_version or '–'}"
        head = (f"{entry.number:{width}}  ", (entry.action + unfinished, "bold"), f"  {versions}  {entry.who}")
        console.print(Text.assemble(*head, (f"  {entry.at[:19].replace('T', ' ')} UTC", "dim")))
        if entry.why:
            console.print(Padding(Text(entry.why), (0, 0, 0, width + 2), expand=False))
    broken = find_faults(records)
    if broken:
        raise StoreError(
            "the journal's chain is broken:\n  " + "\n  ".join(broken),
            where=f"{arguments.model} journal",
            fix="Someone changed or deleted runs of that MLflow experiment; restore them from a backup.",
        )
    return 0
