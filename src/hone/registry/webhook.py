"""MLflow's registry webhook: what MLflow is asked to tell, and how a delivery is known to be MLflow's.

A delivery is signed as https://mlflow.org/docs/latest/ml/webhooks says: HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError
from hone.registry.champion import CHAMPION
from hone.registry.service import answering, connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook

NAME = "hone-watch-registry"
EVENTS = ("model_version_alias.created", "model_version_alias.deleted")
FRESH_SECONDS = 300


class Forged(Exception):
    """A delivery that MLflow did not sign, or not now."""


def subscribe(tracking_uri: str, url: str, secret: str) -> str:
    """Have MLflow post to `url` whenever an alias is set or deleted; the webhook's id.

    One that is there already is brought up to date; switched off in MLflow, it stays off. Raises ConfigError where
    MLflow refuses the URL or cannot read the secrets it keeps, ServiceError where it does not answer.
    """
    from mlflow.exceptions import MlflowException

    client = connect(tracking_uri)
    try:
        with answering(tracking_uri):
            known = [webhook for webhook in _every(client) if webhook.name == NAME]
    except MlflowException as fault:
        raise ConfigError(
            f"MLflow cannot list its webhooks ({fault})",
            where=tracking_uri,
            fix="Give its server the MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY that they were made with, or empty its table "
            "`webhooks`.",
        ) from fault
    given: dict[str, Any] = {"url": url, "secret": secret, "events": list(EVENTS)}
    try:
        with answering(tracking_uri):
            if known:
                return str(client.update_webhook(known[0].webhook_id, **given).webhook_id)
            text = "Starts watch-registry when an alias is set or deleted."
            return str(client.create_webhook(NAME, description=text, **given).webhook_id)
    except MlflowException as fault:
        raise ConfigError(
            f"MLflow does not post there ({fault})",
            where=url,
            fix="Start its server with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and "
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, or give a public https URL.",
        ) from fault


def moved(headers: Mapping[str, str], body: bytes, secret: str) -> str:
    """The model whose champion was set or deleted; '' for a delivery about anything else.

    Raises Forged for a delivery whose signature is wrong or older than five minutes, or that is none.
    """
    identity, timestamp = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    signed = b".".join((identity.encode(), timestamp.encode(), body))
    digest = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    if not hmac.compare_digest(f"v1,{digest}".encode(), headers.get("x-mlflow-signature", "").encode()):
        raise Forged("the signature is not MLflow's")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > FRESH_SECONDS:
        raise Forged(f"the delivery is older than {FRESH_SECONDS} seconds, or the clocks differ")
    told = json.loads(body)
    about = told["data"] if f"{told['entity']}.{told['action']}" in EVENTS else {}
    return str(about["name"]) if about.get("alias") == CHAMPION else ""


def _every(client: MlflowClient) -> list[Webhook]:
    found: list[Webhook] = []
    token: str | None = None
    while token is None or token:
        page = client.list_webhooks(page_token=token or None)
        found += page
        token = page.token or ""
    return found
