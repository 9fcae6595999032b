"""Prefect's clients in threads of our own."""

from __future__ import annotations

from prefect.context import SyncClientContext


def leave_task_client() -> None:
    """In a thread with a task's context, use other clients than the task's, which is closed when the task ends."""
    SyncClientContext.__var__.set(None)  # type: ignore[arg-type]
