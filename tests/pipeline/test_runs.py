"""Runs that a worker started, interrupted in every way: what is left running, of the GPU slots, and in Prefect."""

from __future__ import annotations

import json
import os
import select
import signal
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import LogSort
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Cancelling, Scheduled

from tests.polling import until
from tests.workers import ROOT, Workers

pytestmark = pytest.mark.slow


def gone(process: int, seconds: float) -> None:
    """Wait until a process has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    with open(handle):  # noqa: PTH123
        assert select.select([handle], [], [], seconds)[0], f"{process} still runs after {seconds} s"


def test_a_run_that_is_cancelled_has_stopped_training_in_15_seconds_and_gives_its_slot_back(workers: Workers) -> None:
    run = workers.start()
    flow, training = workers.training(run)
    assert workers.taken() == 1  # the limit was missing: the run made it
    workers.client.set_flow_run_state(run, Cancelling())
    gone(training, 15)
    gone(flow, 60)
    assert workers.ended(run) == StateType.CANCELLED
    assert workers.taken() == 0
    assert [found.info.status for found in workers.mlflow_runs().values()] == ["KILLED"]


def test_a_run_whose_process_is_killed_leaves_no_training_and_no_slot_taken(workers: Workers) -> None:
    run = workers.start()
    flow, training = workers.training(run)
    assert workers.taken() == 1
    os.kill(flow, signal.SIGKILL)
    gone(training, 30)
    until(lambda: workers.taken() == 0, 30)  # by the end of its lease it would be 75 s
    assert workers.ended(run) == StateType.CRASHED


def test_a_training_that_crashes_fails_its_run_and_gives_its_slot_back(workers: Workers) -> None:
    run = workers.start()
    wanted = {
        "artifact_filter": ArtifactFilter(key=ArtifactFilterKey(any_=["train-slow"])),
        "flow_run_filter": FlowRunFilter(id=FlowRunFilterId(any_=[run])),
    }
    _, training = workers.training(run)
    until(lambda: workers.client.read_artifacts(**wanted))
    os.kill(training, signal.SIGKILL)
    assert workers.ended(run) == StateType.FAILED
    assert "was ended by SIGKILL" in str(workers.run(run).state.message)
    assert all(bar.data < 100 for bar in workers.client.read_artifacts(**wanted))  # the training was not completed
    assert workers.taken() == 0


def test_a_run_whose_worker_is_killed_ends_with_it_and_a_retry_goes_on_in_the_same_mlflow_run(
    workers: Workers,
) -> None:
    run = workers.start()
    flow, training = workers.training(run)
    before = workers.step()
    until(lambda: workers.step() > before)
    workers.work().kill()
    gone(training, 30)
    gone(flow, 60)
    assert workers.ended(run) == StateType.CRASHED
    until(lambda: workers.taken() == 0, 15)
    (begun,), reached = workers.mlflow_runs(), str(workers.step())
    workers.client.set_flow_run_state(run, Scheduled(name="AwaitingRetry"), force=True)
    _, training = workers.training(run)
    until(lambda: workers.mlflow_runs()[begun].data.tags.get("hone.resumed.step") == reached)
    assert list(workers.mlflow_runs()) == [begun]
    workers.client.set_flow_run_state(run, Cancelling())
    gone(training, 15)
    assert workers.ended(run) == StateType.CANCELLED


def test_a_run_that_nobody_hears_of_any_more_is_marked_as_crashed(workers: Workers) -> None:
    automation = yaml.safe_load((ROOT / "deployments/automations/crash-zombies.yaml").read_text())
    # Heartbeats come every 30 s; this run is killed at its first.
    automation["trigger"]["within"] = 20
    made = workers.client.create_automation(AutomationCore.model_validate(automation))
    try:
        run = workers.start()
        workers.work()
        flow = workers.flow(run)
        workers.work().kill()
        flow.kill()
        gone(flow.pid, 30)
        assert workers.run(run).state.type == StateType.RUNNING
        assert workers.ended(run) == StateType.CRASHED
        assert "No heartbeat for 90 seconds" in str(workers.run(run).state.message)
    finally:
        workers.client.delete_automation(made)


def test_a_training_waits_for_a_free_slot_and_what_is_cached_needs_none(workers: Workers, tmp_path: Path) -> None:
    tree = workers.config | {"name": "quick", "training": {"epochs": 1}, "evaluation": {"resamples": 200}}
    conf = tmp_path / "quick.yaml"
    conf.write_text(yaml.safe_dump(tree))
    lease, begun = hold(workers), trainings(workers)
    first = workers.hone(conf)
    until(lambda: waits(workers))
    assert trainings(workers) == begun
    workers.client.release_concurrency_slots_with_lease(lease)
    said = first.communicate()
    assert first.returncode == 0, said
    assert workers.taken() == 0
    lease = hold(workers)
    again = workers.hone(conf, "registration.model=other")
    again.communicate()
    assert again.returncode == 0
    workers.client.release_concurrency_slots_with_lease(lease)


@pytest.mark.timeout(1500)
def test_a_run_of_a_terminal_that_was_killed_hung_up_on_or_quit_does_not_stay_running(
    workers: Workers, tmp_path: Path
) -> None:
    conf = tmp_path / "terminal.yaml"
    conf.write_text(
        yaml.safe_dump(workers.config | {"name": "terminal", "training": workers.config["training"] | {"seed": 97}})
    )
    before = trainings(workers)

    def training_run() -> UUID:
        """The one flow run of a terminal's process, as soon as it trains."""
        until(lambda: [folder for folder in trainings(workers) - before if (folder / "history.jsonl").is_file()])
        (record,) = until(lambda: list(workers.home.glob("runs/*.json")))
        return UUID(record.read_text().splitlines()[1])

    killed = workers.hone(conf)
    first = training_run()
    killed.kill()
    killed.communicate()
    assert workers.run(first).state.is_running()
    for number in (signal.SIGHUP, signal.SIGQUIT):
        interrupted = workers.hone(conf)
        assert workers.ended(first) == StateType.CRASHED
        assert "was killed" in workers.run(first).state.message
        (record,) = until(
            lambda: [file for file in workers.home.glob("runs/*.json") if str(first) not in file.read_text()]
        )
        until(lambda file=record: len(file.read_text().splitlines()) == 2)
        second = UUID(record.read_text().splitlines()[1])
        until(lambda run=second: workers.run(run).state.is_running())
        interrupted.send_signal(number)
        _, faults = interrupted.communicate()
        assert interrupted.returncode == 130
        assert faults == "\nhone: interrupted; run the same command again to continue.\n"
        assert workers.ended(second) == StateType.CRASHED
        assert not list(workers.home.glob("runs/*.json"))


def hold(workers: Workers) -> UUID:
    """Take the one slot there is."""
    limit = GlobalConcurrencyLimitUpdate(limit=1, active_slots=0)
    workers.client.upsert_global_concurrency_limit_by_name("gpu", 1)
    workers.client.update_global_concurrency_limit("gpu", limit)
    answer = workers.client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 600)
    return UUID(answer.json()["lease_id"])


def trainings(workers: Workers) -> set[Path]:
    """The work directories in which a training has begun."""
    return {file.parent for file in workers.home.glob("store/work/train-*/spec.json")}


def waits(workers: Workers) -> bool:
    """Whether a run says in its log that it waits for a slot."""
    return any(
        "Waiting for a GPU slot" in line.message
        for line in workers.client.read_logs(limit=200, sort=LogSort.TIMESTAMP_DESC)
    )


def test_a_slot_is_still_held_and_can_be_given_back_after_the_server_was_restarted(tmp_path: Path) -> None:
    from hone.environment import Home
    from hone_app.service.servers import prefect_server, use

    server = prefect_server(Home(tmp_path))
    with SyncPrefectClient(use(server) + "/api") as client:
        client.upsert_global_concurrency_limit_by_name("gpu", 1)
        answer = client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 600)
        lease = UUID(answer.json()["lease_id"])
    process = json.loads((server.home / "prefect.json").read_text())["server"]
    os.kill(process, signal.SIGKILL)
    gone(process, 30)
    until(lambda: not (server.home / "prefect.json").exists())
    with SyncPrefectClient(use(server) + "/api") as client:
        client.renew_concurrency_lease(lease, 600)
        assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 1
        client.release_concurrency_slots_with_lease(lease)
        assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 0
