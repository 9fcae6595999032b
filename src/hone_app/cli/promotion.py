"""`hone promote`, `hone rollback`, `hone history`: the champion of a registered model."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from hone.environment import current_user, home
from hone.errors import ConfigError, PromotionRefused, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from hone.promotion.decision import Decision
    from hone.promotion.journal import Journal


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of `hone`."""
    promote = _command(commands, "promote", _promote, "make a version the champion if it passes the gates")
    promote.add_argument("--version", default="", metavar="V", help="version number (default: the alias candidate)")
    promote.add_argument("--policy", choices=("manual", "auto", "shadow"), help="override promotion.policy")
    promote.add_argument("--golden", default="", metavar="FILE", help="override promotion.golden, the golden set")
    promote.add_argument("--yes", action="store_true", help="approve without a prompt if the gates pass")
    _add_who_and_why(promote)
    rollback = _command(commands, "rollback", _rollback, "make the previous champion the champion again")
    rollback.add_argument("--undo", action="store_true", help="reverse the rollback that was the champion's last move")
    _add_who_and_why(rollback, why=True)
    _command(commands, "history", _history, "show who moved the champion, when, and why")


def _command(commands: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    sub.add_argument("model", metavar="MODEL", help="name of the registered model")
    sub.set_defaults(command=command)
    return sub


def _add_who_and_why(sub: argparse.ArgumentParser, why: bool = False) -> None:
    sub.add_argument("--why", required=why, default="", metavar="TEXT", help="reason, for the journal")
    sub.add_argument("--who", default="", metavar="NAME", help="name, for the journal (default: your user name)")


def _journal(model: str) -> Journal:
    from hone.promotion.promote import open_journal
    from hone_app.service.up import check_stores

    data = home()
    check_stores(data)
    return open_journal(data.tracking_uri, model)


def _promote(arguments: argparse.Namespace) -> int:
    from hone.promotion import promote
    from hone_app.cli.view import make_console, print_lines

    console, journal, who = make_console(), _journal(arguments.model), arguments.who or current_user()
    if done := promote.find_promotion(journal, arguments.version, who=who, downloads=home().downloads):
        console.print(f"{arguments.model} version {done.entry.to_version} is the champion.", style="bold green")
        console.print(f"Nothing moved: {promote.describe_repetition(done)}", style="yellow")
        return 0
    with console.status("comparing the version with the champion on the same rows"):
        decision = promote.decide(
            journal,
            arguments.version,
            downloads=home().downloads,
            policy=arguments.policy or "",
            golden=arguments.golden,
        )
        page = promote.log_decision(journal, decision)
    print_gates(console, decision)
    print_lines(console, {"decision": page, "MLflow run": decision.run_id})
    if decision.policy == "shadow":
        promote.journal_shadow(journal, decision, who)
        console.print(
            f"Shadow: the champion is unchanged; the gates {'passed' if decision.passed else 'did not pass'}."
        )
        return 0
    why = arguments.why
    if decision.passed and decision.policy == "manual" and not arguments.yes:
        approved, why = _ask_approval(decision, why)
        if not approved:
            promote.refuse(journal, decision, who, why or "rejected")
            raise PromotionRefused(f"rejected by {who}", where=f"{decision.model} version {decision.version}")
    with console.status("testing the served model and moving the alias"):
        entry = promote.promote_version(journal, decision, who=who, why=why, downloads=home().downloads).entry
    previous = f", version {entry.from_version} is previous" if entry.from_version else ""
    console.print(f"{decision.model} version {entry.to_version} is the champion{previous}.", style="bold green")
    return 0


def _ask_approval(decision: Decision, why: str) -> tuple[bool, str]:
    """Whether the person at the terminal approves, and the reason."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "the policy is manual, and standard input is not a terminal",
            where=f"hone promote {decision.model}",
            fix="Use --yes to approve, or --policy auto.",
        )
    answer = input(f"Make version {decision.version} the champion? [y/N] ").strip().lower()
    return answer in ("y", "yes"), why or input("Why? ").strip()


def print_gates(console: Console, decision: Decision) -> None:
    """Print a line that names both versions, a row for each gate, and the gates' notes, each once."""
    from rich.text import Text

    from hone.promotion.decision import describe_outcome, format_figure
    from hone_app.cli.view import make_table, print_note, print_table

    against = f"champion, version {decision.champion}" if decision.champion else "baselines: there is no champion"
    console.print(f"{decision.model} version {decision.version} against the {against}", highlight=False)
    columns = ("rows", "measured", "required", "passed")
    table = make_table("gate", *columns, whole=columns)
    styles = {"yes": "green", "no": "bold red", "unclear": "bold yellow"}
    for gate in decision.gates:
        passed = Text(outcome := describe_outcome(gate), styles[outcome])
        table.add_row(*map(Text, (gate.name, gate.rows, format_figure(gate), gate.bound)), passed)
    print_table(console, table)
    names_by_note: dict[str, list[str]] = {}
    for gate in decision.gates:
        names_by_note.setdefault(gate.note, []).append(gate.name)
    for note, names in names_by_note.items():
        subject = "" if len(names) == len(decision.gates) else f"{', '.join(dict.fromkeys(names))}: "
        if note:
            print_note(console, subject + note)


def _rollback(arguments: argparse.Namespace) -> int:
    from hone.promotion import promote
    from hone_app.cli.view import make_console

    journal, who = _journal(arguments.model), arguments.who or current_user()
    moved, moved_now = promote.rollback(
        journal, who=who, why=arguments.why, downloads=home().downloads, undo=arguments.undo
    )
    to, former = moved.entry.to_version, moved.entry.from_version
    console = make_console()
    console.print(
        f"{arguments.model} version {to} is the champion again, version {former} is previous.", style="bold green"
    )
    if not moved_now:
        console.print(f"Nothing moved: {promote.describe_repetition(moved)}", style="yellow")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from rich.padding import Padding
    from rich.text import Text

    from hone.promotion.journal import find_faults
    from hone_app.cli.view import make_console

    console, (records, unreadable) = make_console(), _journal(arguments.model).read_entries()
    if not records and not unreadable:
        console.print(f"{arguments.model}: the journal is empty, no champion has been set.")
    width = len(str(len(records)))
    for record in records:
        entry = record.entry
        unfinished = " (unfinished)" if record.state == "begun" else ""
        versions = f"{entry.from_version or '–'} to {entry.to_version or '–'}"
        heading = (f"{entry.number:{width}}  ", (entry.action + unfinished, "bold"), f"  {versions}  {entry.who}")
        console.print(Text.assemble(*heading, (f"  {entry.at[:19].replace('T', ' ')} UTC", "dim")))
        if entry.why:
            console.print(Padding(Text(entry.why), (0, 0, 0, width + 2), expand=False))
    chain_faults = unreadable + find_faults(records)
    if chain_faults:
        raise StoreError(
            "the journal's chain is broken:\n  " + "\n  ".join(chain_faults),
            where=f"{arguments.model} journal",
            fix="Runs of its MLflow experiment were changed or deleted: restore them from a backup.",
        )
    return 0
