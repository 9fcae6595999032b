"""Creates or updates the automations of a folder on a Prefect server, by name.

A file has the format of `prefect automation create --from-file`: one automation, a list, or a list under `automations`.
In place of ids, which differ between servers, `deployment: NAME` names a deployment and `block: hone-notify` the
recipient of notifications (`hone_app.deploy.notifications`); without a recipient, automations with this block are
removed. An automation that was switched off in the UI stays off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore

from hone.errors import ConfigError
from hone_app.deploy.notifications import BLOCK


def apply_automations(client: SyncPrefectClient, folder: Path, recipient: UUID | None) -> list[str]:
    """Apply all automations in the folder's files; return the names of those that now exist.

    `recipient` is the id of the block that notifications are sent to.
    """
    applied = []
    for file, entry in _list_entries(folder):
        if recipient is None and _notifies(entry):
            _remove(client, entry["name"])
            continue
        _apply(client, AutomationCore.model_validate(_resolve_names(client, entry, file, recipient)))
        applied.append(str(entry["name"]))
    return applied


def find_recipient(client: SyncPrefectClient, folder: Path) -> UUID | None:
    """The id of the block to which the server's automations of these names send notifications; None for none."""
    for _, entry in _list_entries(folder):
        for automation in client.read_automations_by_name(entry["name"]) if _notifies(entry) else []:
            for action in automation.actions:
                if isinstance(action, SendNotification):
                    return action.block_document_id
    return None


def _list_entries(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each automation in the folder's files, with its file."""
    for file in sorted(folder.glob("*.yaml")):
        tree = yaml.safe_load(file.read_text("utf8"))
        for entry in tree.get("automations", [tree]) if isinstance(tree, dict) else tree:
            yield file, entry


def _notifies(entry: dict[str, Any]) -> bool:
    return any(action.get("block") == BLOCK for action in entry["actions"])


def _apply(client: SyncPrefectClient, automation: AutomationCore) -> None:
    existing = client.read_automations_by_name(automation.name)
    if not existing:
        client.create_automation(automation)
    for current in existing:
        updated = automation.model_copy(update={"enabled": current.enabled})
        if _content(current) != _content(updated):
            client.update_automation(current.id, updated)


def _remove(client: SyncPrefectClient, name: str) -> None:
    for automation in client.read_automations_by_name(name):
        client.delete_automation(automation.id)


def _resolve_names(client: SyncPrefectClient, entry: Any, file: Path, block: UUID | None) -> Any:
    """The entry with names replaced by ids."""
    if isinstance(entry, list):
        return [_resolve_names(client, item, file, block) for item in entry]
    if not isinstance(entry, dict):
        return entry
    resolved = {name: _resolve_names(client, value, file, block) for name, value in entry.items()}
    if isinstance(resolved.get("deployment"), str):
        resolved["deployment_id"] = str(_get_deployment_id(client, resolved.pop("deployment"), file))
    if resolved.get("block") == BLOCK:
        resolved["block_document_id"] = str(block)
        del resolved["block"]
    return resolved


def _get_deployment_id(client: SyncPrefectClient, name: str, file: Path) -> UUID:
    by_name = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    deployments = client.read_deployments(deployment_filter=by_name)
    if len(deployments) != 1:
        raise ConfigError(
            f"there are {len(deployments)} deployments called {name}",
            where=str(file),
            fix="Name a deployment in deployments/prefect.yaml.",
        )
    return deployments[0].id


def _content(automation: AutomationCore) -> Any:
    """The fields of an automation that a file can set."""
    return _without_ids(AutomationCore.model_validate(automation.model_dump()).model_dump(mode="json"))


def _without_ids(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_ids(value) for name, value in tree.items() if name != "id"}
    return [_without_ids(item) for item in tree] if isinstance(tree, list) else tree
