"""Applies deployments/ of the working directory to a Prefect server: `python -m tasks.apply [--gpu-slots N]`.

In a process of its own, for the command line never imports Prefect. What is there already is brought up to date:

- the work pool `hone`, whose runs are processes in the working directory;
- the global concurrency limit `gpu`, made with HONE_GPU_SLOTS slots (1 where that is not set), and changed only
  where a number is given here, so that what a person set in the UI stays;
- the deployments of deployments/prefect.yaml, as `prefect deploy --all` does it;
- the automations of deployments/automations/*.yaml, by their names, in the form of `prefect automation create
  --from-file`: one automation, a list, or a list under `automations`. In place of an id, which no file can know,
  `deployment: NAME` names a deployment. An automation that a person switched off stays off.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

POOL = "hone"
FOLDER = Path("deployments")
FILE = FOLDER / "prefect.yaml"


def main() -> int:
    """Apply everything; the last line of output names the deployments."""
    parser = argparse.ArgumentParser(description="Apply deployments/ to the Prefect server of the environment.")
    parser.add_argument("--gpu-slots", type=int, help="how many trainings may run at once")
    slots = parser.parse_args().gpu_slots
    with get_client(sync_client=True) as client:
        make_pool(client, Path.cwd())
        make_slots(client, slots)
        deploy()
        automate(client)
        print(", ".join(entry["name"] for entry in yaml.safe_load(FILE.read_text("utf8"))["deployments"]))  # noqa: T201
    return 0


def make_pool(client: SyncPrefectClient, directory: Path) -> None:
    """The process work pool, whose runs start in `directory`, where conf/ is. What a person set else is kept.

    A pool of another type, such as kubernetes, is left as it is.
    """
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    if pool.type != "process":
        return
    template = pool.base_job_template
    place = template["variables"]["properties"]["working_dir"]
    if place.get("default") != str(directory):
        place["default"] = str(directory)
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


def make_slots(client: SyncPrefectClient, given: int | None) -> None:
    """The limit that `train` takes a slot of."""
    try:
        client.read_global_concurrency_limit_by_name("gpu")
    except ObjectNotFound:
        count = given or int(os.environ.get("HONE_GPU_SLOTS", "1"))
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu", limit=count))
        return
    if given:
        client.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(limit=given))


def deploy() -> None:
    """All deployments of the file; raises SystemExit with what Prefect said where one is refused."""
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def automate(client: SyncPrefectClient) -> None:
    """Every automation of the files, made or brought up to date."""
    for file in sorted(FOLDER.glob("automations/*.yaml")):
        for entry in _listed(yaml.safe_load(file.read_text("utf8"))):
            wanted = AutomationCore.model_validate(_resolved(client, entry, file))
            known = client.read_automations_by_name(wanted.name)
            if not known:
                client.create_automation(wanted)
            for automation in known:
                wanted = wanted.model_copy(update={"enabled": automation.enabled})
                if _content(automation) != _content(wanted):
                    client.update_automation(automation.id, wanted)


def _listed(tree: Any) -> list[dict[str, Any]]:
    found = tree.get("automations", [tree]) if isinstance(tree, dict) else tree
    return list(found)


def _resolved(client: SyncPrefectClient, entry: Any, file: Path) -> Any:
    """The entry with `deployment_id: ID` where it says `deployment: NAME`."""
    if isinstance(entry, list):
        return [_resolved(client, item, file) for item in entry]
    if not isinstance(entry, dict):
        return entry
    found = {name: _resolved(client, value, file) for name, value in entry.items()}
    if isinstance(found.get("deployment"), str):
        found["deployment_id"] = str(_deployment(client, found.pop("deployment"), file))
    return found


def _deployment(client: SyncPrefectClient, name: str, file: Path) -> UUID:
    wanted = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    known = client.read_deployments(deployment_filter=wanted)
    if len(known) != 1:
        raise SystemExit(f"{file}: there are {len(known)} deployments called {name}; it has to name one of {FILE}")
    return known[0].id


def _content(automation: AutomationCore) -> Any:
    """What of an automation a file can say."""
    return _without_ids(AutomationCore.model_validate(automation.model_dump()).model_dump(mode="json"))


def _without_ids(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_ids(value) for name, value in tree.items() if name != "id"}
    return [_without_ids(item) for item in tree] if isinstance(tree, list) else tree


if __name__ == "__main__":
    sys.exit(main())
