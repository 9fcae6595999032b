"""What the commands share that run the line: the configuration, and a flow with its stages shown in the terminal."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hone.display import escape_controls
from hone.environment import Home, home
from hone_app.cli.orchestration import orchestrated, run_flow

if TYPE_CHECKING:
    from prefect import Flow
    from rich.console import Console

    from hone.config.sections import RunConfig


def load(arguments: argparse.Namespace) -> RunConfig:
    """The configuration that a command names, with its overrides; a warning if a base model's own code runs."""
    from hone.config.file import load_config
    from hone.pipeline.stage import pin_base

    config = pin_base(load_config(arguments.config, arguments.overrides), home())
    if config.model.trust_code:
        warning = f"hone: warning: the code of {config.model.trust_code} runs, since model.trust_code names it."
        print(escape_controls(warning), file=sys.stderr)  # noqa: T201
    return config


def run_finetune(config: RunConfig, data: Home, console: Console) -> None:
    """Run the flow `finetune` and show its progress."""
    from hone.pipeline.stages import list_stages

    _run_line(_import_finetune, config, data, console, list_stages(config))


def run_sweep(config: RunConfig, data: Home, console: Console) -> Any:
    """Run the flow `sweep` and show its progress; returns its final state."""
    from hone.pipeline.stages import list_stages

    stages = list_stages(config)
    after = stages.index("curate") + 1
    return _run_line(
        _import_sweep, config, data, console, [*stages[:after], "sweep", *stages[after:]], return_state=True
    )


def _import_finetune() -> Flow[..., Any]:
    from flows.finetune import finetune

    return finetune


def _import_sweep() -> Flow[..., Any]:
    from flows.sweep import sweep

    return sweep


def _run_line(
    import_flow: Callable[[], Flow[..., Any]],
    config: RunConfig,
    data: Home,
    console: Console,
    stages: Sequence[str],
    **options: Any,
) -> Any:
    from hone.pipeline.run import run_ahead
    from hone.tracking.client import create_sqlite_store
    from hone_app.cli.view import show_progress

    with show_progress(stages, console):
        with orchestrated(data) as starting:
            # Creating an MLflow store takes seconds: meanwhile the Prefect server starts and the first rows are read.
            # Not a daemon thread: it completes the store even if the run ends earlier.
            threading.Thread(target=_prepare_quietly, args=(create_sqlite_store, data)).start()
            flow = import_flow()
            # The server takes seconds to import and start.
            run_ahead(config, data, starting)
        return run_flow(data, flow, config, **options)


def _prepare_quietly(prepare: Callable[[str], None], data: Home) -> None:
    # A fault here is reported by the stage that needs the store.
    with suppress(OSError, sqlite3.Error):
        prepare(data.tracking_uri)
