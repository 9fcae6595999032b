"""Notifications: one place, and the block of Prefect's through which automations write to it.

The place is an apprise URL (https://github.com/caronc/apprise/wiki) or a block of Prefect's, named in HONE_NOTIFY_URL.
Its secret lies in that variable and, encrypted, in the block; the automations know the block's id alone.
"""

from __future__ import annotations

from uuid import UUID

from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from hone.errors import ConfigError

VARIABLE = "HONE_NOTIFY_URL"
BLOCK = "hone-notify"


def get_block_id(client: SyncPrefectClient, url: str) -> UUID:
    """The id of the notification block: the one that TYPE/NAME names, or `hone-notify`, which then holds the URL."""
    if "://" in url:
        return _save_block(url)
    kind, slash, name = url.partition("/")
    try:
        block = client.read_block_document_by_name(name, kind, include_secrets=False) if slash else None
    except ObjectNotFound:
        block = None
    if block is None:
        raise ConfigError(
            f"{url} is neither a URL nor the TYPE/NAME of a block",
            where=VARIABLE,
            fix="`prefect block ls` names the blocks that exist, https://github.com/caronc/apprise/wiki the URLs.",
        )
    return block.id


def _save_block(url: str) -> UUID:
    from apprise import Apprise

    if not Apprise().add(url):  # its own log line would show the URL
        scheme = url.partition("://")[0]
        fix = "https://github.com/caronc/apprise/wiki says how the URL of each service is written."
        raise ConfigError(f"apprise knows no such URL, {scheme}://...", where=VARIABLE, fix=fix)
    # Prefect has no type of block for any URL of apprise's; this one hands over what it is given.
    block_id = SlackWebhook(url=url, notify_type="info").save(BLOCK, overwrite=True)
    assert isinstance(block_id, UUID)
    return block_id
