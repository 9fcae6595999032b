"""Runs that a worker started, interrupted in every way: what is left running, of the GPU slots, and in Prefect."""

from __future__ import annotations

import os
import select
import signal

import pytest
import yaml
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Cancelling, Scheduled

from tests.service import ROOT, Service, until

pytestmark = pytest.mark.slow


def gone(process: int, seconds: float) -> None:
    """Wait until a process has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    with open(handle):  # noqa: PTH123
        assert select.select([handle], [], [], seconds)[0], f"{process} still runs after {seconds} s"


def test_a_run_that_is_cancelled_has_stopped_training_in_15_seconds_and_gives_its_slot_back(service: Service) -> None:
    run = service.start()
    flow, training = service.training(run)
    assert service.taken() == 1  # the limit was missing: the run made it
    service.client.set_flow_run_state(run, Cancelling())
    gone(training, 15)
    gone(flow, 15)
    assert service.ended(run) == StateType.CANCELLED
    until(lambda: service.taken() == 0, 5)


def test_a_run_whose_process_is_killed_leaves_no_training_and_no_slot_taken(service: Service) -> None:
    run = service.start()
    flow, training = service.training(run)
    assert service.taken() == 1
    os.kill(flow, signal.SIGKILL)
    gone(training, 30)
    until(lambda: service.taken() == 0, 30)  # by the end of its lease it would be 75 s
    assert service.ended(run) == StateType.CRASHED


def test_a_training_that_crashes_fails_its_run_and_gives_its_slot_back(service: Service) -> None:
    run = service.start()
    _, training = service.training(run)
    os.kill(training, signal.SIGKILL)
    assert service.ended(run) == StateType.FAILED
    assert "was ended by SIGKILL" in str(service.run(run).state.message)
    assert service.taken() == 0


def test_a_run_whose_worker_is_killed_ends_with_it_and_a_retry_goes_on_in_the_same_mlflow_run(
    service: Service,
) -> None:
    run = service.start()
    flow, training = service.training(run)
    service.work().kill()
    gone(training, 15)
    gone(flow, 15)
    assert service.ended(run) == StateType.CRASHED
    until(lambda: service.taken() == 0, 15)
    (begun,) = service.mlflow_runs()
    service.client.set_flow_run_state(run, Scheduled(name="AwaitingRetry"), force=True)
    _, training = service.training(run)
    (resumed,) = until(lambda: [tags for tags in service.mlflow_runs().values() if tags.get("hone.resumed.step")])
    assert list(service.mlflow_runs()) == [begun]
    assert int(resumed["hone.resumed.step"]) > 0
    service.client.set_flow_run_state(run, Cancelling())
    gone(training, 15)
    assert service.ended(run) == StateType.CANCELLED


def test_a_run_that_nobody_hears_of_any_more_is_marked_as_crashed(service: Service) -> None:
    automation = yaml.safe_load((ROOT / "deployments/automations/crash-zombies.yaml").read_text())
    # Heartbeats come every 30 s; this run lives for less.
    automation["trigger"]["within"] = 25
    made = service.client.create_automation(AutomationCore.model_validate(automation))
    try:
        run = service.start()
        flow, training = service.training(run)
        service.work().kill()
        os.kill(flow, signal.SIGKILL)
        gone(training, 30)
        assert service.run(run).state.type == StateType.RUNNING
        assert service.ended(run, 90) == StateType.CRASHED
        assert "not been heard of" in str(service.run(run).state.message)
        until(lambda: service.taken() == 0, 30)
    finally:
        service.client.delete_automation(made)
