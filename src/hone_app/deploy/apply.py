"""Applies deployments/ of the working directory to a Prefect server: `python -m hone_app.deploy.apply [OPTIONS]`.

Runs in a process of its own, since the command line must not import Prefect. Creates or updates:

- the work pool `hone`, whose runs are processes in the working directory, with the command that Prefect chooses;
- the global concurrency limit `gpu`: created with HONE_GPU_SLOTS slots (default 1), later changed only by
  --gpu-slots, so that a number set in the UI stays;
- the deployments in deployments/prefect.yaml, as with `prefect deploy --all`;
- the choices in the deployments' forms: configurations in conf/, and registered models (`tasks.forms`);
- the automations in deployments/automations/*.yaml, by name (`hone_app.deploy.automations`).

Exits with the status of the error (`hone.errors`): 2 for what Prefect refuses, 8 if Prefect does not answer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessWorker

from hone.config.folder import list_names
from hone.environment import home
from hone.errors import ConfigError, HoneError, ServiceError
from hone_app.deploy.automations import apply_automations, find_recipient
from hone_app.deploy.names import AUTOMATIONS, FILE, POOL
from hone_app.deploy.notifications import VARIABLE, describe_recipient, get_block_id
from hone_app.deploy.refusal import describe_refusal
from hone_app.terminal_runs import mark_crashed
from tasks.forms import fill_choices

# They decide which code a run executes: set in the work pool, not in a form or a deployment.
FIXED = ("command", "env", "working_dir")


def main() -> int:
    """Apply everything; the last line of output is JSON with the deployments' names and notifications' recipient."""
    parser = argparse.ArgumentParser(description="Apply deployments/ to the Prefect server of the environment.")
    parser.add_argument("--gpu-slots", type=int, help="maximum number of trainings at once")
    parser.add_argument("--no-notifications", action="store_true", help=f"stop notifying, whatever {VARIABLE} is")
    arguments = parser.parse_args()
    try:
        applied = apply_all(arguments.gpu_slots, notifications=not arguments.no_notifications)
    except HoneError as fault:
        print(f"hone: {fault}", file=sys.stderr)  # noqa: T201
        return fault.exit_code
    print(json.dumps(applied))  # noqa: T201
    return 0


def apply_all(slots: int | None, *, notifications: bool) -> dict[str, object]:
    """Apply everything; return the `deployments` and the recipient of `notifications` ('' for none).

    Without HONE_NOTIFY_URL, the recipient stays as it is on the server. Raises ConfigError for what Prefect refuses,
    ServiceError if it does not answer.
    """
    names = read_names(FILE)
    try:
        with get_client(sync_client=True) as client:
            mark_crashed(home(), client)
            create_pool(client, Path.cwd())
            apply_slots(client, slots)
            apply_deployments()
            fill_choices(client, list_names())
            set_working_directory(client, Path.cwd())  # after what may be refused: runs stay where they were
            recipient = get_recipient(client, os.environ.get(VARIABLE, ""), AUTOMATIONS) if notifications else None
            description = describe_recipient(client, recipient) if recipient else ""
            apply_automations(client, AUTOMATIONS, recipient)
            return {"deployments": names, "notifications": description}
    except httpx.TransportError as fault:
        url = os.environ.get("PREFECT_API_URL", "Prefect's server")
        raise ServiceError(f"does not answer: {fault}", where=url) from None


def read_names(file: Path) -> list[str]:
    """The names of the deployments in the file. Raises ConfigError if they cannot be read."""
    try:
        with file.open(encoding="utf8") as text:
            return [str(entry["name"]) for entry in yaml.safe_load(text)["deployments"]]
    except OSError as fault:
        what, fix = f"cannot be read: {fault.strerror}", "Run the command in the project's folder."
    except yaml.YAMLError as fault:
        what, fix = f"is not YAML: {' '.join(str(fault).split())}", ""
    except (KeyError, TypeError):
        what = "is not a list `deployments` in which each has a `name`"
        fix = "See https://docs.prefect.io/v3/how-to-guides/deployments/prefect-yaml."
    raise ConfigError(what, where=str(file.absolute()), fix=fix)


def get_recipient(client: SyncPrefectClient, url: str, folder: Path) -> UUID | None:
    """The id of the block of this recipient; without a URL, of the one that the folder's automations notify already.

    None if there is none. Raises as `get_block_id`.
    """
    return get_block_id(client, url) if url else find_recipient(client, folder)


def create_pool(client: SyncPrefectClient, directory: Path) -> None:
    """Create the process work pool, whose runs start in `directory` (which has conf/), or restrict the existing one."""
    try:
        template = client.read_work_pool(POOL).base_job_template
    except ObjectNotFound:
        template = restrict_template(ProcessWorker.get_default_base_job_template())
        template["job_configuration"]["working_dir"] = str(directory)
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        return
    restricted = restrict_template(template)
    if restricted != template:
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=restricted))


def restrict_template(template: dict[str, Any]) -> dict[str, Any]:
    """The work pool's template without the variables FIXED, which get the values of their defaults.

    Prefect then refuses a deployment or a run that sets one of them.
    """
    variables = template["variables"]
    properties = variables.get("properties", {})
    variable = {name: schema for name, schema in properties.items() if name not in FIXED}
    defaults = {name: properties[name].get("default") for name in FIXED if name in properties}
    values = {name: default for name, default in defaults.items() if default is not None}
    values |= {name: f"{{{{ {name} }}}}" for name in variable}  # these stay placeholders
    return {
        **template,
        "job_configuration": apply_values(template["job_configuration"], values),
        "variables": {
            **variables,
            "properties": variable,
            "required": [name for name in variables.get("required", []) if name in variable],
            "additionalProperties": False,
        },
    }


def set_working_directory(client: SyncPrefectClient, directory: Path) -> None:
    """Let runs of the work pool start in `directory`; the pool's other settings are kept.

    A pool of another type, such as kubernetes, is not changed.
    """
    pool = client.read_work_pool(POOL)
    template = pool.base_job_template
    if pool.type == "process" and template["job_configuration"].get("working_dir") != str(directory):
        template["job_configuration"]["working_dir"] = str(directory)
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
    """Apply all deployments of the file. Raises ConfigError with Prefect's reason if one is refused."""
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        name, reason = describe_refusal(result.stdout + result.stderr)
        raise ConfigError(
            f"Prefect refuses {f'the deployment {name}' if name else 'the file'}: {reason}",
            where=str(FILE.absolute()),
            fix="Correct the file, and apply it again with `hone up`.",
        )


if __name__ == "__main__":
    sys.exit(main())
