"""Which faults tasks are retried after, and with what delay."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from hone.errors import HoneError


def is_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a retry may help: a server, the network, a lock. Never for data, configuration or a bad loss."""
    fault = state.result(raise_on_failure=False)
    if isinstance(fault, HoneError):
        return fault.retryable
    return isinstance(fault, ConnectionError | TimeoutError)


def is_not_permanent(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a retry may help a prediction: after any fault except one that Hone knows to be permanent."""
    fault = state.result(raise_on_failure=False)
    return not isinstance(fault, HoneError) or fault.retryable


RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
