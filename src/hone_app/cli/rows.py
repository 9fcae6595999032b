"""`hone rows`: what becomes of a configuration's rows before anything is trained."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hone.curation.account import describe_groups
from hone.environment import Home, home
from hone.evaluation.report.population import count_given_rows
from hone.splits import SPLITS
from hone_app.cli.arguments import CONFIG, find_config

if TYPE_CHECKING:
    from hone.config.sections import RunConfig


def add_commands(commands: Any) -> None:
    """Add `rows` to the subparsers `commands`."""
    text = "read and curate the rows and print the account: read, refused, dropped by reason, per split"
    sub = commands.add_parser("rows", help=text, description=f"{text[0].upper()}{text[1:]}. Trains nothing.")
    sub.add_argument("configs", nargs="+", type=find_config, **CONFIG)
    sub.set_defaults(command=print_accounts)


def print_accounts(arguments: argparse.Namespace) -> int:
    """Print the account of each configuration; the artifacts are in the store for the runs that follow."""
    from hone.config.file import load_config
    from hone_app.cli.view import make_console

    console = make_console()
    for path in arguments.configs:
        config = load_config(path, [])
        for line in describe_account(config.name, *make_account(config, home())):
            console.print(line, highlight=False, soft_wrap=True)
    return 0


def make_account(config: RunConfig, data_folder: Home) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Read and curate the rows, or take both artifacts from the store; the facts of the stages ingest and curate."""
    from hone.pipeline.run import run_stage
    from hone.pipeline.stage import Job

    ingest = run_stage("ingest", Job(config, {}, data_folder))
    curate = run_stage("curate", Job(config, {"ingest": ingest}, data_folder))
    return ingest.facts(), curate.facts()


def describe_account(name: str, ingest: Mapping[str, Any], curate: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of an account, from the facts of both stages."""
    refused = _count_reasons(ingest["reasons"])
    yield f"{name}: {ingest['read']:,} rows read, {ingest['refused']:,} refused{f' ({refused})' if refused else ''}"
    for title, counts in (("left out", ingest.get("skipped")), ("noted", ingest.get("notes"))):
        if counts:
            yield f"  {title}: {_count_reasons(counts)}"
    if ingest.get("later"):
        yield f"  later than as_of: {ingest['later']:,}"
    for split, outcomes in (ingest.get("splits") or {}).items():
        if unused := _count_reasons({"refused": outcomes.get("refused", 0), "left out": outcomes.get("skipped", 0)}):
            yield f"  {split}: {unused}"
    for step in curate["funnel"]:
        if step["dropped"]:
            yield f"  {step['step']}: {step['before']:,} -> {step['after']:,} ({_count_reasons(step['dropped'])})"
        if step.get("flagged"):
            yield f"  {step['step']}: in validation and test rows, which stay: {_count_reasons(step['flagged'])}"
        for remark in (step.get("summary"), step.get("warning")):
            if remark:
                yield f"  {step['step']}: {remark}"
    if groups := describe_groups(curate.get("groups", {})):
        yield f"  split: {groups}"
    given_rows = count_given_rows(ingest, curate)
    splits = (
        f"{split} {curate['splits'][split]:,}" + (f" of {given_rows[split]:,} given" if split in given_rows else "")
        for split in SPLITS
        if split in curate["splits"]
    )
    yield f"  {', '.join(splits)}"


def _count_reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items() if count)
