"""A Prefect server, workers and a data folder, for tests of what surrounds a run."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType

from tests import preloaded
from tests.polling import until

ROOT = Path(__file__).parents[1]
POOL = "machine"


@dataclass
class Workers:
    """A Prefect server, a data folder, and workers on this machine."""

    url: str
    home: Path
    client: SyncPrefectClient
    deployment: UUID
    config: dict[str, Any]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    runs: list[subprocess.Popen[str]] = field(default_factory=list)

    def work(self) -> psutil.Process:
        """The worker that runs, started if none does."""
        if not self.workers or self.workers[-1].poll() is not None:
            command = [sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "tests"]
            with (self.home / "worker.log").open("ab") as log:
                worker = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, cwd=self.home)
            self.workers.append(worker)
        return psutil.Process(self.workers[-1].pid)

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "HONE_"))}
        return kept | {
            "HONE_HOME": str(self.home),
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(self.home / "client"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "HF_HUB_OFFLINE": "1",
        }

    def start(self, **changes: Any) -> UUID:
        """A run of the deployment, with sections of its configuration changed."""
        config = self.config | changes
        return self.client.create_flow_run_from_deployment(self.deployment, parameters={"config": config}).id

    def run(self, run: UUID) -> FlowRun:
        return self.client.read_flow_run(run)

    def ended(self, run: UUID, seconds: float = 120) -> StateType:
        """The type of the state in which the run ended."""
        until(lambda: self.run(run).state.is_final(), seconds)
        return self.run(run).state.type

    def processes(self, module: str) -> list[psutil.Process]:
        """The processes below the worker that run a module."""
        found = []
        for process in self.work().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # a zombie is no process either
                if any(module in word for word in process.cmdline()):
                    found.append(process)
        return found

    def flow(self, run: UUID) -> psutil.Process:
        """The process of the run, as soon as its flow has begun."""
        until(lambda: self.run(run).state.is_running())
        for process in self.work().children():
            with suppress(psutil.NoSuchProcess):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run):
                    return process
        raise AssertionError(f"the worker has no process for run {run}")

    def training(self, run: UUID) -> tuple[int, int]:
        """Wait until the run has committed a checkpoint: the process ids of its flow and of its training."""
        self.work()

        def begun() -> Any:
            assert not self.run(run).state.is_final(), (self.run(run).state, (self.home / "worker.log").read_text())
            new = list(self.home.glob("store/work/train-*/checkpoints/step-*"))
            return new and self.processes("hone.training.loop")

        (training,) = until(begun)
        return training.ppid(), training.pid

    def mlflow_runs(self) -> dict[str, Any]:
        """The MLflow run of each training of the deployment's own configuration, by id."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.home}/mlflow/mlflow.db")
        experiments = [found.experiment_id for found in client.search_experiments()]
        own = f"attributes.run_name = '{self.config['name']}'"
        return {run.info.run_id: run for run in client.search_runs(experiments, own)}

    def step(self) -> int:
        """The step of the newest checkpoint."""
        return max(int(path.name.split("-")[1]) for path in self.home.glob("store/work/train-*/checkpoints/step-*"))

    def hone(self, *words: object, **more: str) -> subprocess.Popen[str]:
        """`hone run` as a person would start it, with this server."""
        command = [preloaded.hone(), "run", *map(str, words)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.runs.append(subprocess.Popen(command, env=self.environment() | more, cwd=self.home, **pipes))
        return self.runs[-1]

    def close(self) -> None:
        """End what it has started and still runs; a worker may miss that it is asked to."""
        for process in (*self.runs, *self.workers):
            process.terminate()  # type: ignore[attr-defined]
            try:
                process.wait(20)  # type: ignore[attr-defined]
            except subprocess.TimeoutExpired:
                process.kill()  # type: ignore[attr-defined]
                process.wait()  # type: ignore[attr-defined]

    def taken(self) -> int:
        """How many slots of the limit `gpu` are taken."""
        return self.client.read_global_concurrency_limit_by_name("gpu").active_slots
