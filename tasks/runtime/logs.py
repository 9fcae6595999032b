"""How a run's log shows an error that Hone raised on purpose: as where, what and the fix, without a traceback."""

from __future__ import annotations

import logging

from hone.errors import HoneError

ENGINES = ("prefect.flow_runs", "prefect.task_runs")  # the loggers of runs, to which Prefect's engines write tracebacks


def shorten_errors() -> None:
    """Shorten Hone's own errors in the logs of all runs of this process; other exceptions keep their traceback."""
    for name in ENGINES:
        logging.getLogger(name).addFilter(_shorten_error)


def _shorten_error(record: logging.LogRecord) -> bool:
    fault = record.exc_info[1] if record.exc_info else None
    if isinstance(fault, HoneError):
        record.msg, record.args, record.exc_info = str(fault), (), None
    return True
