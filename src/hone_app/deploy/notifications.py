"""Notifications: one recipient, and the Prefect block through which automations write to it.

HONE_NOTIFY_URL names the recipient: an apprise URL (https://github.com/caronc/apprise/wiki) or a Prefect block. Its
secret is in that variable and, encrypted, in the block; automations contain the block's id only.
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
    """The id of the notification block: the one named TYPE/NAME, or `hone-notify`, saved with the URL.

    Raises ConfigError if there is no such block or apprise does not support the URL.
    """
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
            fix="`prefect block ls` lists the blocks, https://github.com/caronc/apprise/wiki the URLs.",
        )
    return block.id


def _save_block(url: str) -> UUID:
    from apprise import Apprise

    if not Apprise().add(url):  # its own log line would show the URL
        scheme = url.partition("://")[0]
        fix = "See https://github.com/caronc/apprise/wiki for the URL format of each service."
        raise ConfigError(f"apprise does not support this URL, {scheme}://...", where=VARIABLE, fix=fix)
    # Prefect has no block type for arbitrary apprise URLs; SlackWebhook passes any URL on to apprise.
    block_id = SlackWebhook(url=url, notify_type="info").save(BLOCK, overwrite=True)
    assert isinstance(block_id, UUID)
    return block_id
