"""Applies deployments/ of the working directory to a Prefect server: `python -m hone_app.deploy.apply [--gpu-slots N]`.

Runs in a process of its own, since the command line must not import Prefect. Creates or updates:

- the work pool `hone`, whose runs are processes in the working directory;
- the global concurrency limit `gpu`: created with HONE_GPU_SLOTS slots (default 1), later changed only by
  --gpu-slots, so that a number set in the UI stays;
- the deployments in deployments/prefect.yaml, as with `prefect deploy --all`;
- the choices in the deployments' forms: configurations in conf/, and registered models (`tasks.forms`);
- the automations in deployments/automations/*.yaml, by name (`hone_app.deploy.automations`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.choice import list_names
from hone.errors import HoneError
from hone_app.deploy.automations import apply_automations
from hone_app.deploy.notifications import VARIABLE
from tasks.forms import fill_choices

POOL = "hone"
FOLDER = Path("deployments")
FILE = FOLDER / "prefect.yaml"


def main() -> int:
    """Apply everything; the last line of output names the deployments."""
    parser = argparse.ArgumentParser(description="Apply deployments/ to the Prefect server of the environment.")
    parser.add_argument("--gpu-slots", type=int, help="maximum number of trainings at once")
    slots = parser.parse_args().gpu_slots
    with get_client(sync_client=True) as client:
        apply_pool(client, Path.cwd())
        apply_slots(client, slots)
        apply_deployments()
        fill_choices(client, list_names())
        try:
            apply_automations(client, FOLDER / "automations", os.environ.get(VARIABLE, ""))
        except HoneError as fault:
            raise SystemExit(str(fault)) from None
        print(", ".join(entry["name"] for entry in yaml.safe_load(FILE.read_text("utf8"))["deployments"]))  # noqa: T201
    return 0


def apply_pool(client: SyncPrefectClient, directory: Path) -> None:
    """Create or update the process work pool, whose runs start in `directory` (which has conf/).

    Other settings of the pool are kept. A pool of another type, such as kubernetes, is not changed.
    """
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    if pool.type != "process":
        return
    template = pool.base_job_template
    working_directory = template["variables"]["properties"]["working_dir"]
    if working_directory.get("default") != str(directory):
        working_directory["default"] = str(directory)
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


def apply_slots(client: SyncPrefectClient, requested: int | None) -> None:
    """Create the limit that `train` takes a slot of, or set it to `requested`."""
    try:
        client.read_global_concurrency_limit_by_name("gpu")
    except ObjectNotFound:
        count = requested or int(os.environ.get("HONE_GPU_SLOTS", "1"))
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu", limit=count))
        return
    if requested:
        client.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(limit=requested))


def apply_deployments() -> None:
    """Apply all deployments of the file. Raises SystemExit with Prefect's output if one is refused."""
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)


if __name__ == "__main__":
    sys.exit(main())
