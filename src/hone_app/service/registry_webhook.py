"""MLflow's registry webhook: subscription, and verification of deliveries.

Deliveries are signed with HMAC-SHA256 over `ID.TIMESTAMP.BODY` (https://mlflow.org/docs/latest/ml/webhooks).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from hone.errors import ConfigError
from hone.tracking.aliases import CHAMPION
from hone.tracking.client import connect, list_all, translate_errors

NAME = "hone-watch-registry"
EVENTS = ("model_version_alias.created", "model_version_alias.deleted")
FRESH_SECONDS = 300
_SECONDS = re.compile("[0-9]{1,15}")


def subscribe(tracking_uri: str, url: str, secret: str) -> None:
    """Make MLflow post to `url` whenever an alias is set or deleted.

    An existing webhook is updated; one that was switched off in MLflow stays off. Raises ConfigError if MLflow refuses
    the URL or cannot decrypt its stored secrets, ServiceError if it does not answer.
    """
    from mlflow.exceptions import MlflowException

    client = connect(tracking_uri)
    try:
        with translate_errors(tracking_uri):
            existing = [webhook for webhook in list_all(client.list_webhooks) if webhook.name == NAME]
    except MlflowException as fault:
        raise ConfigError(
            f"MLflow cannot list its webhooks ({fault})",
            where=tracking_uri,
            fix="Start its server with the MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY that they were created with, or empty "
            "its table `webhooks`.",
        ) from fault
    settings: dict[str, Any] = {"url": url, "secret": secret, "events": list(EVENTS)}
    try:
        with translate_errors(tracking_uri):
            if existing:
                client.update_webhook(existing[0].webhook_id, **settings)
            else:
                client.create_webhook(NAME, description="Starts watch-registry when an alias moves.", **settings)
    except MlflowException as fault:
        raise ConfigError(
            f"MLflow refuses to post to this URL ({fault})",
            where=url,
            fix="Start its server with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and "
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, or give a public https URL.",
        ) from fault


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether MLflow signed this delivery with `secret` within the last FRESH_SECONDS."""
    delivery, timestamp = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    content = b".".join((delivery.encode(), timestamp.encode(), body))
    digest = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()
    is_authentic = hmac.compare_digest(f"v1,{digest}".encode(), headers.get("x-mlflow-signature", "").encode())
    return is_authentic and bool(_SECONDS.fullmatch(timestamp)) and abs(time.time() - int(timestamp)) <= FRESH_SECONDS


def find_moved_model(body: bytes) -> str:
    """The model whose alias champion was set or deleted; '' for any other delivery.

    Raises ValueError for a body that MLflow does not send.
    """
    try:
        event = json.loads(body)
        data = event["data"] if f"{event['entity']}.{event['action']}" in EVENTS else {}
        name = data["name"] if data.get("alias") == CHAMPION else ""
    except (KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise ValueError(f"not an event of the registry: {type(fault).__name__}") from None
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError("the model's name is not one")
    return name
