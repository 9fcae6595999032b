"""`hone predict`: a registered model's answers to every row of a file or a query."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hone_app.cli.orchestration import orchestrated, run_flow

if TYPE_CHECKING:
    from rich.console import Console

    from hone.batch.request import Request
    from hone.environment import Home

EPILOG = """examples:
  hone predict demo --input tickets.csv --output out.csv --columns text=body
  hone predict demo --input 'logs/*.jsonl.gz' --output scored/ --version 3
  hone predict demo --input sqlite:///app.db --query 'select id, text from tickets order by id' --output out.parquet
"""


def add_commands(commands: Any) -> None:
    """Add `predict` to the commands."""
    text = "predict the rows of a file or query with a registered model"
    sub = commands.add_parser(
        "predict",
        help=text,
        description=f"{text[0].upper()}{text[1:]}; write them with the predictions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("model", metavar="MODEL", help="name of the registered model")
    sub.add_argument("--input", nargs="+", required=True, metavar="IN", help="files, globs or URLs; or a database URL")
    sub.add_argument("--query", default="", help="SELECT statement for the database")
    sub.add_argument(
        "--output", required=True, metavar="OUT", help="OUT.csv, OUT.jsonl or OUT.parquet, or a directory/"
    )
    sub.add_argument("--version", default="", help="version number or alias (default: champion)")
    sub.add_argument(
        "--columns", nargs="+", default=[], metavar="OURS=THEIRS", help="column names of the input: text=body"
    )
    sub.add_argument(
        "--source", nargs="+", default=[], metavar="OPTION=VALUE", help="options of the source: encoding=latin-1"
    )
    sub.add_argument("--shard-rows", default="10000", help="rows that are stored and retried together (default: 10000)")
    sub.add_argument("--unanswered", default="keep", help="rows that cannot be predicted: keep (default) or stop")
    sub.add_argument("--prefix", default="", help="prefix for the names of the added columns")
    sub.set_defaults(command=predict)


def predict(arguments: argparse.Namespace) -> int:
    """Run the flow and print the path of the output."""
    from hone.environment import home
    from hone_app.cli.view import make_console, print_lines

    request, data, console = _request(arguments), home(), make_console()
    print_lines(console, describe_output(request, *_run(request, data, console)))
    return 0


def describe_output(request: Request, account: Mapping[str, Any], cached: bool) -> dict[str, str]:
    """The last lines: rows, time, and output; or that an earlier run has written the same output."""
    unanswered = f", {account['unanswered']:,} of them without a prediction" if account["unanswered"] else ""
    speed = f"{account['seconds']:.1f} s, {account['rows_per_second']:,.1f} rows/s"
    finished = account["finished"].replace("T", " ").removesuffix("+00:00")
    earlier = f"up to date since {finished} UTC: rows, model and options have not changed"
    return {
        "predicted": f"{account['rows']:,} rows by {account['version']}{unanswered}",
        **({"cached": earlier} if cached else {"time": speed}),
        "output": request.output,
    }


def _request(arguments: argparse.Namespace) -> Request:
    from pydantic import ValidationError

    from hone.batch.request import Request
    from hone.errors import ConfigError

    options: dict[str, Any] = {"kind": "files", "paths": arguments.input}
    if arguments.query:
        options = {"kind": "sql", "url": arguments.input[0], "query": arguments.query}
    tree = {
        "model": arguments.model,
        "source": options | _pairs("--source", arguments.source),
        "columns": _pairs("--columns", arguments.columns),
        **{name: getattr(arguments, name) for name in ("output", "version", "shard_rows", "unanswered", "prefix")},
    }
    try:
        return Request.model_validate(tree)
    except ValidationError as fault:
        lines = [f"  {'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors()]
        raise ConfigError("invalid options\n" + "\n".join(lines), where="hone predict", fix="See --help.") from None


def _pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    from hone.errors import ConfigError

    for pair in pairs:
        if "=" not in pair[1:]:
            raise ConfigError("does not have the form NAME=VALUE", where=f"{option} {pair}")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _run(request: Request, data: Home, console: Console) -> tuple[dict[str, Any], bool]:
    """Run the flow `batch-predict` and show its progress; its account, and whether an earlier run wrote the output."""
    from hone_app.cli.view import show_progress

    with show_progress(["read", "predict", "write"], console) as board:
        with orchestrated(data):
            from flows.batch_predict import batch_predict
        options = {name: getattr(request, name) for name in type(request).model_fields}
        state: Any = run_flow(data, batch_predict, **options, return_state=True)
        account: dict[str, Any] = state.result()  # what failed is marked as failed
    return account, board.lines["write"].event == "hit"
