"""Notifications: Prefect's automations in a folder, which write to one place through one notification block.

The place is an apprise URL (https://github.com/caronc/apprise/wiki) or a block of Prefect's, named in HONE_NOTIFY_URL.
Its secret lies in that variable and, encrypted, in the block; the automations know the block's id alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from hone.errors import ConfigError

VARIABLE = "HONE_NOTIFY_URL"
BLOCK = "hone-notify"
PATTERN = "notify-*.yaml"


def set_up(folder: Path, url: str) -> list[str]:
    """Apply the automations `notify-*.yaml` of `folder` with the block that `url` stands for; gives their names.

    Where `url` is empty, those that were applied before are taken away.
    """
    found = [yaml.safe_load(file.read_text("utf8")) for file in sorted(folder.glob(PATTERN))]
    with get_client(sync_client=True) as client:
        if not url:
            _remove(client, [automation["name"] for automation in found])
            return []
        block = block_id(client, url)
        for automation in found:
            _apply(client, AutomationCore.model_validate(_filled(automation, block)))
    return [automation["name"] for automation in found]


def block_id(client: SyncPrefectClient, url: str) -> UUID:
    """The id of the notification block: the one that TYPE/NAME names, or `hone-notify`, which then holds the URL."""
    if "://" in url:
        return _saved(url)
    kind, slash, name = url.partition("/")
    try:
        found = client.read_block_document_by_name(name, kind, include_secrets=False) if slash else None
    except ObjectNotFound:
        found = None
    if found is None:
        raise ConfigError(
            f"{url} is neither a URL nor the TYPE/NAME of a block",
            where=VARIABLE,
            fix="`prefect block ls` names the blocks that exist, https://github.com/caronc/apprise/wiki the URLs.",
        )
    return found.id


def _saved(url: str) -> UUID:
    from apprise import Apprise

    if not Apprise().add(url):  # its own log line would show the URL
        scheme = url.partition("://")[0]
        fix = "https://github.com/caronc/apprise/wiki says how the URL of each service is written."
        raise ConfigError(f"apprise knows no such URL, {scheme}://...", where=VARIABLE, fix=fix)
    # Prefect has no type of block for any URL of apprise's; this one hands over what it is given.
    saved = SlackWebhook(url=url, notify_type="info").save(BLOCK, overwrite=True)
    assert isinstance(saved, UUID)
    return saved


def _filled(automation: Mapping[str, Any], block: UUID) -> dict[str, Any]:
    """The automation with the block's id in place of its name."""
    actions = [dict(action) for action in automation["actions"]]
    for action in actions:
        if action.pop("block", "") == BLOCK:
            action["block_document_id"] = str(block)
    return {**automation, "actions": actions}


def _apply(client: SyncPrefectClient, automation: AutomationCore) -> None:
    there = client.read_automations_by_name(automation.name)
    if there:
        client.update_automation(there[0].id, automation)
    else:
        client.create_automation(automation)


def _remove(client: SyncPrefectClient, names: Sequence[str]) -> None:
    for automation in (found for name in names for found in client.read_automations_by_name(name)):
        client.delete_automation(automation.id)


if __name__ == "__main__":
    import sys

    applied = set_up(Path(sys.argv[1]), os.environ.get(VARIABLE, ""))
    sys.stdout.write(f"{len(applied)} notifications: {', '.join(applied) or f'{VARIABLE} names no place'}\n")
