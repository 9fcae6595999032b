"""Notifications: one recipient, and the Prefect block through which automations write to it.

HONE_NOTIFY_URL names the recipient: an apprise URL (https://github.com/caronc/apprise/wiki) or a Prefect block. Its
secret is in that variable and, encrypted, in the block; automations contain the block's id only. Unset or empty, it
changes nothing: the recipient is the one that the server's automations have.
"""

from __future__ import annotations

import re
from uuid import UUID

from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from hone.errors import ConfigError

VARIABLE = "HONE_NOTIFY_URL"
BLOCK = "hone-notify"
# URLs whose host is a host: in others, such as slack://TOKEN/..., it is part of the secret.
SCHEMES_WITH_HOST = frozenset("http https form forms json jsons xml xmls mailto mailtos".split())


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


def describe_recipient(client: SyncPrefectClient, block: UUID) -> str:
    """The recipient without its secret: scheme and host of the URL in `hone-notify`, TYPE/NAME of any other block.

    Raises ConfigError if the block was deleted.
    """
    try:
        document = client.read_block_document(block)
    except ObjectNotFound:
        raise ConfigError(
            "the block that automations notify was deleted",
            where=VARIABLE,
            fix="Set it and run `hone up`, or run `hone up --no-notifications`.",
        ) from None
    if document.name == BLOCK and "url" in document.data:
        return describe_url(str(document.data["url"]))
    return f"{document.block_type.slug if document.block_type else document.block_type_name}/{document.name}"


def describe_url(url: str) -> str:
    """The URL without what may be secret: the scheme, and the host where it is one."""
    scheme, _, rest = url.partition("://")
    authority, *path = re.split("[/?#]", rest, maxsplit=1)
    # An @ after the first / is of a password that contains one.
    if scheme.lower() not in SCHEMES_WITH_HOST or "@" in "".join(path):
        return f"{scheme}://..."
    return f"{scheme}://{authority.rpartition('@')[2]}"
